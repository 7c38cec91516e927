"""A gate of MoLE: which experts a record's prompt goes through, and how much of each.

What the paper (arXiv 2404.13628) gives a gate are the outputs of the experts, all positions in a
row; the released code gives it the input of the layer, all positions in a row. Both need texts of
one length, so here a prompt's first ``positions`` count, in order and without padding, and what a
shorter one lacks is zero. Or all positions count alike, by their mean (ours): a prompt may then
have any length, and the gate has ``positions`` times fewer weights.

Shapes: n examples, T positions, P of them that a gate reads, N experts, in, out, f features that a
gate reads: N P out, P in or N out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from silotune.core import Context, Key, PerExampleGradients, Role, Site, generator
from silotune.linalg import LowRank

from .mole_balance import Balance
from .routing import expanded, mapped, prompt
from .site_layer import own_dtype, zeros

GateInput = Literal["outputs", "input", "mean"]
"""What a gate reads: the experts' outputs (the paper), the layer's input (the released code), or
the experts' outputs averaged over the prompt (ours)."""

MIX, LOG_TEMPERATURE = "mix", "log_temperature"
"""Names of a gate's tensors: e (N, f) and theta (1,)."""

SPREAD = 0.01
"""Standard deviation of e at birth, as in the released code; uniform, not normal as there: a normal
draw differs between processors in its last bits, and e travels as a seed."""


class Gate(nn.Module):
    """What one transformer layer weighs the experts by."""

    def __init__(
        self,
        site: Site,
        pairs: Sequence[LowRank],
        kept: Sequence[bool],
        sink: PerExampleGradients,
        context: Context,
        balance: Balance,
        reads: GateInput,
        positions: int,
    ) -> None:
        super().__init__()
        weight, dtype = site.weight(), own_dtype(site)
        born = born_gate(site, len(pairs), 0, reads, positions)
        self._keys = {key.name: key for key in born}
        for key, tensor in born.items():
            self.register_parameter(key.name, zeros(site, *tensor.shape))
        self._pairs = [
            (pair.right.to(weight.device, dtype), pair.left.to(weight.device, dtype))
            for pair in pairs
        ]
        self.register_buffer("kept", torch.tensor(kept, device=weight.device), persistent=False)
        self._sink, self._context, self._balance = sink, context, balance
        self._reads, self._positions = reads, positions

    def tensors(self) -> dict[Key, nn.Parameter]:
        """Both by key."""
        return {key: self.get_parameter(name) for name, key in self._keys.items()}

    def forward(self, x: Tensor) -> Tensor:
        """Gates (n, N) for the prompt ``x`` (n, T, in)."""
        log_gates = torch.log_softmax(self._logits(x), dim=1)
        self._balance.note(log_gates[:, self.get_buffer("kept")])
        return log_gates.exp()

    def _logits(self, x: Tensor) -> Tensor:
        """(n, N); -infinity where an expert is masked."""
        z = F.normalize(self._features(x), dim=1)
        logits = mapped(z, self.get_parameter(MIX), self._sink, self._keys[MIX])
        key = self._keys[LOG_TEMPERATURE]
        theta = expanded(self.get_parameter(LOG_TEMPERATURE), len(x), self._sink, key)
        cooled = logits * torch.exp(-theta)
        return cooled.masked_fill(~self.get_buffer("kept"), -torch.inf)

    def _features(self, x: Tensor) -> Tensor:
        """(n, f)."""
        own = x.to(self.get_parameter(MIX).dtype).reshape(len(x), -1, x.shape[-1])
        seen = prompt(self._context, x).reshape(own.shape[:2])
        if self._reads == "mean":
            return self._outputs(_mean(own, seen))
        first = first_positions(own, seen, self._positions)
        return first.flatten(1) if self._reads == "input" else self._outputs(first)

    def _outputs(self, read: Tensor) -> Tensor:
        """What each expert makes of (n, P, in), side by side (n, N P out)."""
        each = [F.linear(F.linear(read, a), b).flatten(1) for a, b in self._pairs]
        return torch.cat(each, dim=1)


def born_gate(
    site: Site, experts: int, seed: int, reads: GateInput, positions: int
) -> dict[Key, Tensor]:
    """A gate's tensors at the first site that it serves: e of deviation 0.01, theta = 0."""
    features = {
        "outputs": experts * positions * site.out_features,
        "input": positions * site.in_features,
        "mean": experts * site.out_features,
    }[reads]
    shape, g = (experts, features), generator(seed, "gate", site.name)
    tensors = {
        MIX: (2.0 * torch.rand(shape, generator=g, dtype=torch.float32) - 1.0) * (SPREAD * 3**0.5),
        LOG_TEMPERATURE: torch.zeros(1, dtype=torch.float32),
    }
    return {Key(site.name, Role.GATE, name): tensor for name, tensor in tensors.items()}


def first_positions(x: Tensor, seen: Tensor, positions: int) -> Tensor:
    """The first so many positions (n, P, in) of ``x`` (n, T, in) that are seen; then zeros."""
    place = (seen.cumsum(dim=1) - 1).where(seen, positions).clamp(max=positions)
    room = x.new_zeros(len(x), positions + 1, x.shape[-1])
    return room.scatter_add(1, place.unsqueeze(2).expand_as(x), x)[:, :positions]


def _mean(x: Tensor, seen: Tensor) -> Tensor:
    """(n, 1, in), over the positions that are seen."""
    weights = seen.to(x.dtype)
    total = torch.einsum("nt,ntd->nd", weights, x)
    return (total / weights.sum(dim=1, keepdim=True).clamp(min=1)).unsqueeze(1)
