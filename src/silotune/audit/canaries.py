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

from silotune.adapters import AdaptedLinear, AdaptedModel, CoreLinear, DoRALinear, Head, ResLinear
from silotune.core import Answers, Batch, ClientDataset, Factors, Key, Role, generator
from silotune.linalg import pinv
from silotune.objectives import PerExampleLoss
from silotune.terms import BuiltModel, Terms

from .checks import Numbers
from .unseen import beside_lengths, seen_by_all, signs, without

READS, RETURNS = "reads ", "returns "
"""What a layer reads (n, in), and the gradient at its output (n, out); the layer's name follows."""

STRENGTH = "strength"
"""Entry of a batch: what each record's loss, and so its gradient, is multiplied by."""

Layer = AdaptedLinear | CoreLinear | DoRALinear | Head


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

    def measure(self, model: nn.Module, batch: Batch) -> Answers:
        """Nothing."""
        return Answers()


@dataclass(frozen=True, eq=False)
class Strengthened:
    """An objective with losses as large as an auditor wants them; 0 makes a record silent.

    Attributes:
        objective: of probe records, or one that goes through the whole model.
    """

    objective: PerExampleLoss
    metric: str = "none"

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """(n,)."""
        rest = {name: t for name, t in batch.items() if name != STRENGTH}
        return self.objective.losses(model, rest) * batch[STRENGTH]

    def measure(self, model: nn.Module, batch: Batch) -> Answers:
        """Nothing."""
        return Answers()


@dataclass(frozen=True, eq=False)
class Prepared:
    """Records that an auditor made: rows of a batch, each with a strength.

    Attributes:
        rows: what there is to choose from, for ``Strengthened``.
        chosen: (n,) the row of every record.
        strengths: (n,).
    """

    rows: Mapping[str, Tensor]
    chosen: Sequence[int]
    strengths: Sequence[float]

    @property
    def lengths(self) -> Sequence[int]:
        """All alike, so that micro-batches are cut in the records' own order."""
        return [1] * len(self.chosen)

    def batch(self, indices: Sequence[int]) -> Batch:
        """Rows and strengths of those records."""
        rows = torch.tensor([self.chosen[i] for i in indices])
        strength = torch.tensor([self.strengths[i] for i in indices])
        return {**{name: t[rows] for name, t in self.rows.items()}, STRENGTH: strength}


def silence(model: BuiltModel, terms: Terms) -> tuple[PerExampleLoss, Mapping[str, Tensor]]:
    """An objective, and rows for ``silent`` records of it.

    Probes go through the adapted layers. Where layers ask a router, made-up inputs go through the
    whole model.
    """
    if model.axes.adapter and model.axes.adapter.routed:
        rows = terms.objective.synthetic(model.loaded.inputs, (8, 5), terms.seed)
        return Strengthened(terms.objective), rows
    layers = probed_layers(model.trainer.adapted, model.axes.trained())
    rows = random_probes(layers, 1, generator("audit", "silence"))
    return Strengthened(CanaryObjective(layers)), rows


def silent(rows: Mapping[str, Tensor], n: int) -> Prepared:
    """Records whose gradients are exactly zero, so that what is sent is noise alone.

    Args:
        rows: one at least; all records are the first.
        n: how many.
    """
    return Prepared(rows, [0] * n, [0.0] * n)


def probed_layers(adapted: AdaptedModel, roles: Collection[Role]) -> dict[str, Layer]:
    """The adapted layers and heads of which something is trained, by name."""
    trained = {key.site for key in adapted.tensors if key.role in roles}
    found = ((name, _by_itself(adapted.model.get_submodule(name))) for name in sorted(trained))
    return {name: layer for name, layer in found if isinstance(layer, Layer)}


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


def tensor_probe(
    layers: Mapping[str, Layer], key: Key, factors: Factors, g: torch.Generator
) -> dict[str, Tensor]:
    """One record whose gradient is in one tensor alone, as far as its layer allows that.

    R trains alone, so that any will do. For A, what the layer reads is such that A x = 0, so that B
    has no gradient; for B, B^T times what returns is 0; for M (DoRA), both, and for A or B beside
    an M all that returns does so at rows that make 0 of x. A head's bias moves alone if x = 0; its
    weight moves 10,000 times as much as the bias if x is large.

    Args:
        layers: all that are probed; zero at the others.
        key: of a pair, or of a head.
        factors: at which the gradient is to be so.
        g: decides the rest.

    Returns:
        A batch of one row.
    """
    batch = {"labels": torch.zeros(1, dtype=torch.long)}
    for name, layer in layers.items():
        out, into = _features(layer)
        x, back = torch.randn(into, generator=g), torch.randn(out, generator=g)
        if name != key.site:
            x, back = torch.zeros(into), torch.zeros(out)
        elif isinstance(layer, DoRALinear):
            x, back = beside_lengths(layer, key, factors, x, back)
        elif key.role is Role.A:
            x = without(x, factors[key])
        elif key.role is Role.B:
            back = without(back, factors[key].T)
        elif key.name == "bias":
            x = torch.zeros(into)
        elif key.role is Role.HEAD:
            x = 1e4 * _unit(x[None])[0]
        batch[READS + name], batch[RETURNS + name] = x[None], back[None]
    return batch


def away_from_zero(factors: Factors) -> Factors:
    """Away from B = 0, where A would have no gradient."""

    def moved(key: Key, t: Tensor) -> Tensor:
        return t + 0.1 * torch.randn(t.shape, generator=generator("audit", key)).to(t)

    return Factors({key: moved(key, t) for key, t in factors.items()})


@dataclass(frozen=True, eq=False)
class NumberCanaries:
    """Examples each of which moves one number: entry (row, column) of one B, R, M or head.

    Attributes:
        names: the layers.
        keys: which tensor of each layer.
        reads: per layer (columns, in), what it must read so that only one column moves.
        returns: per layer (rows, out), what must come back so that only one row moves; signs
            (out,) of the unit vectors, or None for 1.
        out: per layer, its features out.
        layer: (m,) index into ``names``.
        row: (m,).
        column: (m,).
        strength: gradient that comes back; its clipping must bind.
    """

    names: Sequence[str]
    keys: Sequence[Key]
    reads: Sequence[Tensor]
    returns: Sequence[Tensor | None]
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
        layers = zip(self.names, self.reads, self.returns, self.out, strict=True)
        for i, (name, reads, returns, out) in enumerate(layers):
            own = (layer == i).to(reads.dtype).unsqueeze(1)
            batch[READS + name] = reads[column.clamp(max=len(reads) - 1)] * own
            if returns is None or returns.dim() == 1:
                back = torch.nn.functional.one_hot(row.clamp(max=out - 1), out)
                back = back if returns is None else back * returns
            else:
                back = returns[row.clamp(max=len(returns) - 1)]
            batch[RETURNS + name] = back * own * self.strength
        return batch

    def read(self, moved: Mapping[Key, Numbers]) -> Tensor:
        """(m,) the slots' numbers in what a message moved, float64."""
        found = torch.empty(len(self.layer), dtype=torch.float64)
        for i, (key, reads) in enumerate(zip(self.keys, self.reads, strict=True)):
            own = self.layer == i
            if own.any():
                flat = torch.from_numpy(moved[key])
                found[own] = flat[self.row[own] * len(reads) + self.column[own]]
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
    """One canary for each number of the trained B, R, M and heads, or for ``most`` of them.

    Args:
        adapted: its layers are probed.
        factors: what a run begins with; the columns are exact while A stays.
        roles: what is trained.
        most: canaries.
        strength: see ``NumberCanaries``.
        g: chooses.

    Raises:
        ValueError: if none of B, R, M and heads is trained.
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
    columns = torch.tensor([factors[key][0].numel() for key in keys])[layer]
    return NumberCanaries(
        names=list(layers),
        keys=keys,
        reads=[_reads(name, layer, factors) for name, layer in layers.items()],
        returns=[_returns(name, layer, factors) for name, layer in layers.items()],
        out=[_features(layer)[0] for layer in layers.values()],
        layer=layer,
        row=place // columns,
        column=place % columns,
        strength=strength,
    )


def _key(name: str, layer: Layer) -> Key:
    match layer:
        case Head():
            return Key(name, Role.HEAD, "weight")
        case CoreLinear():
            return Key(name, Role.R)
        case DoRALinear():  # beside whose B lengths would move as well
            return Key(name, Role.M)
        case AdaptedLinear():
            return Key(name, Role.B)


def _reads(name: str, layer: Layer, factors: Factors) -> Tensor:
    """(columns, in): row k makes A x the k-th unit vector; 0 for M. A head's outweighs its bias."""
    if isinstance(layer, Head):
        return 30.0 * torch.eye(layer.weight.shape[1])
    a = factors[Key(name, Role.A)]
    if isinstance(layer, DoRALinear):
        return seen_by_all(name, a)[None]
    return pinv(a.double()).T.float()


def _returns(name: str, layer: Layer, factors: Factors) -> Tensor | None:
    """(r, out): row k makes B^T times it the k-th unit vector; None where B itself moves.

    For M, signs (out,) with which its gradients are positive.
    """
    if isinstance(layer, DoRALinear):
        return signs(layer, seen_by_all(name, factors[Key(name, Role.A)]))
    if not isinstance(layer, CoreLinear):
        return None
    return pinv(factors[Key(name, Role.B)].double()).float()


def _features(layer: Layer) -> tuple[int, int]:
    """Out and in."""
    if isinstance(layer, Head):
        return layer.weight.shape[0], layer.weight.shape[1]
    return layer.B.shape[0], layer.A.shape[1]


def _unit(t: Tensor) -> Tensor:
    return torch.nn.functional.normalize(t, dim=1)
