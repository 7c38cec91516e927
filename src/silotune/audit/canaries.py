"""Canaries: records whose gradients an auditor chooses, through the real adapted layers.

A guarantee must hold for the worst records, and real ones are not the worst. A probe record says
for every adapted layer what it reads and what gradient comes back to its output, so the row that
the layer's own kernel leaves in the sink is any outer product we like. Everything after the loss
(sink, clipping, noise, optimiser, messages) is what training uses; what is between the layers is
the coverage guard's business.

Shapes: n records, m slots; in, out = features of a layer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from silotune.adapters import AdaptedLinear, AdaptedModel, Head, ResLinear
from silotune.core import Batch, ClientDataset, Factors, Key, Meters, Role
from silotune.linalg import pinv

READS, RETURNS = "reads ", "returns "
"""What a layer reads (n, in), and the gradient at its output (n, out); the layer's name follows."""

Layer = AdaptedLinear | Head


@dataclass(frozen=True, eq=False)
class CanaryObjective:
    """The objective of probe records: ``sum_layer <layer(what it reads), what it returns>``.

    Attributes:
        layers: of the model; all that are trained.
    """

    layers: Mapping[str, Layer]
    metric: str = "none"

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """(n,)."""
        parts = [
            (layer(batch[READS + name].to(layer.weight.dtype)) * batch[RETURNS + name]).sum(dim=1)
            for name, layer in self.layers.items()
        ]
        return torch.stack(parts).sum(dim=0)

    def measure(self, model: nn.Module, batch: Batch) -> Meters:
        """Nothing."""
        return {}


def probed_layers(adapted: AdaptedModel, roles: Collection[Role]) -> dict[str, Layer]:
    """The adapted layers and heads of which something is trained, by name."""
    trained = {key.site for key in adapted.tensors if key.role in roles}
    found = ((name, _by_itself(adapted.model.get_submodule(name))) for name in sorted(trained))
    return {name: layer for name, layer in found if isinstance(layer, AdaptedLinear | Head)}


def _by_itself(layer: nn.Module) -> nn.Module:
    """A layer without its shortcuts to others, which a probe does not run in their order."""
    return layer.own if isinstance(layer, ResLinear) else layer


def random_probes(layers: Mapping[str, Layer], n: int, g: torch.Generator) -> dict[str, Tensor]:
    """Records of which every layer reads and returns a random vector of length 1."""
    batch = {"labels": torch.zeros(n, dtype=torch.long)}
    for name, layer in layers.items():
        out, into = _features(layer)
        batch[READS + name] = _unit(torch.randn(n, into, generator=g))
        batch[RETURNS + name] = _unit(torch.randn(n, out, generator=g))
    return batch


@dataclass(frozen=True, eq=False)
class NumberCanaries:
    """Examples each of which moves one number: entry (row, column) of one B, or of one head.

    Attributes:
        names: the layers.
        keys: which tensor of each layer.
        reads: per layer (columns, in), what it must read so that only one column moves.
        out: per layer, its features out.
        layer: (m,) index into ``names``.
        row: (m,).
        column: (m,).
        strength: gradient that comes back; its clipping must bind.
    """

    names: Sequence[str]
    keys: Sequence[Key]
    reads: Sequence[Tensor]
    out: Sequence[int]
    layer: Tensor
    row: Tensor
    column: Tensor
    strength: float

    @property
    def lengths(self) -> Sequence[int]:
        """All alike."""
        return [1] * len(self.layer)

    def batch(self, indices: Sequence[int]) -> Batch:
        """What each layer reads and returns; zero but for the record's own layer."""
        chosen = torch.as_tensor(indices)
        layer, row, column = (t[chosen] for t in (self.layer, self.row, self.column))
        batch = {"labels": torch.zeros(len(chosen), dtype=torch.long)}
        for i, (name, reads, out) in enumerate(zip(self.names, self.reads, self.out, strict=True)):
            own = (layer == i).to(reads.dtype).unsqueeze(1)
            batch[READS + name] = reads[column.clamp(max=len(reads) - 1)] * own
            onehot = torch.nn.functional.one_hot(row.clamp(max=out - 1), out)
            batch[RETURNS + name] = onehot * own * self.strength
        return batch

    def read(self, factors: Mapping[Key, Tensor]) -> Tensor:
        """(m,) the slots' numbers, float64."""
        found = torch.empty(len(self.layer), dtype=torch.float64)
        for i, key in enumerate(self.keys):
            own = self.layer == i
            found[own] = factors[key][self.row[own], self.column[own]].double()
        return found


@dataclass(frozen=True, eq=False)
class Subset:
    """Some of the examples."""

    examples: ClientDataset
    indices: Sequence[int]

    @property
    def lengths(self) -> Sequence[int]:
        """Of the chosen ones."""
        lengths = self.examples.lengths
        return [lengths[i] for i in self.indices]

    def batch(self, indices: Sequence[int]) -> Batch:
        """Of the chosen ones."""
        return self.examples.batch([self.indices[i] for i in indices])


def slots(
    adapted: AdaptedModel,
    factors: Factors,
    roles: Collection[Role],
    most: int,
    strength: float,
    g: torch.Generator,
) -> NumberCanaries:
    """One canary for each number of the trained B and heads, or for ``most`` of them.

    Args:
        adapted: its layers are probed.
        factors: what a run begins with; the columns are exact while A stays.
        roles: what is trained.
        most: canaries.
        strength: see ``NumberCanaries``.
        g: chooses.

    Raises:
        ValueError: if neither B nor a head is trained.
    """
    layers = probed_layers(adapted, roles)
    keys = [_key(name, layer) for name, layer in layers.items()]
    sizes = torch.tensor([factors[key].numel() if key.role in roles else 0 for key in keys])
    if not sizes.sum():
        raise ValueError("an audit needs a method that trains B or a head")
    every = torch.randperm(int(sizes.sum()), generator=g)[:most]
    ends = sizes.cumsum(0)
    layer = torch.searchsorted(ends, every, right=True)
    place = every - (ends - sizes)[layer]
    columns = torch.tensor([factors[key].shape[1] for key in keys])[layer]
    return NumberCanaries(
        names=list(layers),
        keys=keys,
        reads=[_reads(name, layer, factors) for name, layer in layers.items()],
        out=[_features(layer)[0] for layer in layers.values()],
        layer=layer,
        row=place // columns,
        column=place % columns,
        strength=strength,
    )


def _key(name: str, layer: Layer) -> Key:
    return Key(name, Role.B) if isinstance(layer, AdaptedLinear) else Key(name, Role.HEAD, "weight")


def _reads(name: str, layer: Layer, factors: Factors) -> Tensor:
    """(columns, in): row k makes A x the k-th unit vector; a head's outweighs its bias."""
    if isinstance(layer, Head):
        return 30.0 * torch.eye(layer.weight.shape[1])
    return pinv(factors[Key(name, Role.A)].double()).T.float()


def _features(layer: Layer) -> tuple[int, int]:
    """Out and in."""
    if isinstance(layer, Head):
        return layer.weight.shape[0], layer.weight.shape[1]
    return layer.B.shape[0], layer.A.shape[1]


def _unit(t: Tensor) -> Tensor:
    return torch.nn.functional.normalize(t, dim=1)
