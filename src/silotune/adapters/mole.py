"""MoLE, Mixture of LoRA Experts (Wu et al. 2024, arXiv 2404.13628): gates over trained adapters.

Stage 1 is not here: it is N runs that leave adapters, such as those of single silos. Here they are
frozen, a part of the base that is not merged into it, and only gates (and a head) train. For each
transformer layer one gate looks at the prompt, once, and all adapted sites of the layer follow:

    y = W x + sum_i G_i s_i B_i A_i x
    G = softmax(e z / tau),   z = [E_1 .. E_N] / |E_1 .. E_N|,   E_i = s_i B_i A_i mean_t x_t

E_i is what expert i adds at the first adapted site of the layer, pooled over the tokens of the
prompt, so that z has a fixed length; the paper flattens all tokens, for texts of one length. e is
(N, N out), drawn uniformly with the released code's standard deviation of 0.01; tau = exp(theta) is
learned, theta = 0 at birth, so that it stays positive. (Clients' means of theta are geometric ones
of tau.)

Balance, by record: L_bal = -sum_i log q_i with q_i the mean of G_i over the gates of the model; its
minimum is N log N, where all experts are used alike. The paper weighs it by 0.5. The released code
makes it of detached numbers, so that it trains nothing; here it has a gradient.

An expert that is masked has G_i = 0, and the others' gates grow in proportion: a softmax over the
logits that are left. Nothing is trained again.

The scale of an expert is inside its pairs: experts may have ranks and scales of their own, and what
is folded is a part of the pair, as in PEFT's format. Experts must be made for this very base model.

Shapes: n examples, T positions, N experts, out, in, R sum of the experts' ranks.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from silotune.core import Context, Factors, Key, PerExampleGradients, Role, Site, generator
from silotune.linalg import LowRank

from .base import Adapter, Layer
from .peft_pairs import read_pairs, refuse_other_base
from .routing import Decision, blocks, expanded, mapped, prompt
from .site_layer import SiteLayer, own_dtype, zeros

MIX, LOG_TEMPERATURE = "mix", "log_temperature"
"""Names of a gate's tensors: e (N, N out) and theta (1,)."""

SPREAD = 0.01
"""Standard deviation of e at birth, as in the released code; uniform, not normal as there: a normal
draw differs between processors in its last bits, and e travels as a seed."""


@dataclass(frozen=True, eq=False)
class Expert:
    """A trained adapter: at each site the pair s B A, its scale inside.

    Attributes:
        name: the folder that it comes from.
        pairs: by site; (out, in) each.
    """

    name: str
    pairs: Mapping[str, LowRank]

    def digest(self) -> str:
        """SHA-256 of all numbers: clients must hold the same."""
        left = {Key(site, Role.B): pair.left for site, pair in self.pairs.items()}
        right = {Key(site, Role.A): pair.right for site, pair in self.pairs.items()}
        return Factors(left | right).digest()


def load_expert(folder: str, base_model: str) -> Expert:
    """Read an adapter folder in PEFT's format. Its heads, if any, are left out.

    Args:
        folder: holds the adapter.
        base_model: what it is to stand beside, by its name or folder; the last part of it counts.

    Raises:
        ValueError: if it cannot be read, or says that it was made for another model.
    """
    try:
        pairs, made_for = read_pairs(Path(folder))
        refuse_other_base(folder, made_for, base_model)
    except ValueError as error:
        raise ValueError(f"experts: {error}") from error
    return Expert(folder, pairs)


@dataclass(frozen=True, kw_only=True)
class Experts(Adapter):
    """Gates over trained, frozen adapters.

    Attributes:
        experts: at least two, to be of use; empty as long as only the plan of a method matters.
        masked: names of experts that are not to be used.
        balance_weight: of L_bal in every record's loss.

    Raises:
        ValueError: if all experts are masked, or a number is out of range.
    """

    seeded: ClassVar[bool] = True  # gates are drawn, and experts are no part of what travels
    per_example_safe: ClassVar[bool] = True  # gates are smooth
    recomputable: ClassVar[bool] = True
    routed: ClassVar[bool] = True
    no_start_because: ClassVar[str] = (
        "it trains no pair, and mixes adapters that are trained already; list it in experts"
    )

    experts: tuple[Expert, ...] = ()
    masked: tuple[str, ...] = ()
    balance_weight: float = 0.5

    def __post_init__(self) -> None:
        if self.balance_weight < 0:
            raise ValueError("balance_weight: must not be negative")
        names = {expert.name for expert in self.experts}
        if names and (strange := set(self.masked) - names):
            raise ValueError(f"masked_experts: {min(strange)} is none of the experts")
        if names and names <= set(self.masked):
            raise ValueError("masked_experts: one expert at least must be left")

    def frozen(self, site: Site) -> frozenset[Role]:
        """None: what is frozen is not among the tensors."""
        return frozenset()

    def idle(self, sites: Sequence[Site]) -> frozenset[Key]:
        """All gates if one expert is left: there is nothing to weigh."""
        alone = len(self.experts) - len(self.masked) == 1
        return frozenset(self.gates(sites, 0)) if alone else frozenset()

    def digests(self) -> tuple[str, ...]:
        """One of every expert."""
        return tuple(expert.digest() for expert in self.experts)

    def initial_factors(self, site: Site, seed: int) -> Mapping[Role, Tensor]:
        """Nothing."""
        return {}

    def gates(self, sites: Sequence[Site], seed: int) -> Mapping[Key, Tensor]:
        """Draw e from a normal distribution of standard deviation 0.01; theta = 0."""
        born = [_born(own[0], len(self.experts), seed) for own in blocks(sites).values()]
        return {key: tensor for gate in born for key, tensor in gate.items()}

    def layers(
        self, sites: Sequence[Site], sink: PerExampleGradients, context: Context
    ) -> Mapping[str, Layer]:
        """All experts beside every base; the first of every transformer layer brings the gate.

        Raises:
            ValueError: if there are fewer than two experts, or one does not fit the sites.
        """
        if len(self.experts) < 2:
            raise ValueError("experts: list two adapter folders or more")
        for expert in self.experts:
            _check_fit(expert, sites)
        found: dict[str, Layer] = {}
        kept = [expert.name not in self.masked for expert in self.experts]
        by_block = blocks(sites)
        balance = Balance(self.balance_weight, context)
        for name, own in by_block.items():
            pairs = [expert.pairs[own[0].name] for expert in self.experts]
            gate = Gate(own[0], pairs, kept, sink, context, balance)
            decision = Decision(name, own[0], gate, context)
            for i, site in enumerate(own):
                pairs = [expert.pairs[site.name] for expert in self.experts]
                found[site.name] = ExpertLinear(site, pairs, decision, gate if i == 0 else None)
        return found


@dataclass(frozen=True)
class Balance:
    """L_bal of all gates that decide in a forward pass."""

    weight: float
    context: Context

    def note(self, log_gates: Tensor) -> None:
        """Keep log G (n, kept experts) of one more gate."""
        notes = self.context.notes
        notes["log gates", len(notes)] = log_gates
        if self.weight:
            self.context.penalties["balance"] = self.term

    def term(self) -> Tensor:
        """(n,), weighed."""
        logs = torch.stack(list(self.context.notes.values()))
        log_q = logs.logsumexp(dim=0) - math.log(len(logs))
        return -self.weight * log_q.sum(dim=1)


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
    ) -> None:
        super().__init__()
        weight, dtype = site.weight(), own_dtype(site)
        born = _born(site, len(pairs), 0)
        self._keys = {key.name: key for key in born}
        for key, tensor in born.items():
            self.register_parameter(key.name, zeros(site, *tensor.shape))
        self._pairs = [
            (pair.right.to(weight.device, dtype), pair.left.to(weight.device, dtype))
            for pair in pairs
        ]
        self.register_buffer("kept", torch.tensor(kept, device=weight.device), persistent=False)
        self._sink, self._context, self._balance = sink, context, balance

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
        z = F.normalize(self._outputs(self._mean(x)), dim=1)
        logits = mapped(z, self.get_parameter(MIX), self._sink, self._keys[MIX])
        key = self._keys[LOG_TEMPERATURE]
        theta = expanded(self.get_parameter(LOG_TEMPERATURE), len(x), self._sink, key)
        cooled = logits * torch.exp(-theta)
        return cooled.masked_fill(~self.get_buffer("kept"), -torch.inf)

    def _mean(self, x: Tensor) -> Tensor:
        """(n, in), over the prompt."""
        own = x.to(self.get_parameter(MIX).dtype).reshape(len(x), -1, x.shape[-1])
        seen = prompt(self._context, x).reshape(own.shape[:2]).to(own.dtype)
        total = torch.einsum("nt,ntd->nd", seen, own)
        return total / seen.sum(dim=1, keepdim=True).clamp(min=1)

    def _outputs(self, mean: Tensor) -> Tensor:
        """What each expert makes of it, side by side (n, N out)."""
        each = [F.linear(F.linear(mean, a), b) for a, b in self._pairs]
        return torch.cat(each, dim=1)


class ExpertLinear(SiteLayer):
    """One site with all experts beside it. Replaces the base module inside the model."""

    no_fold: ClassVar[str] = "a mixture is folded nowhere: experts stay as they are"
    no_merge: ClassVar[str] = (
        "the weights of experts differ from prompt to prompt, so a mixture cannot be merged into "
        "one weight"
    )

    A: Tensor  # (R, in)
    B: Tensor  # (out, R)
    owner: Tensor  # (R,): whose a row of A is

    def __init__(
        self, site: Site, pairs: Sequence[LowRank], decision: Decision, gate: Gate | None
    ) -> None:
        super().__init__(site)
        weight, dtype = self.weight, own_dtype(site)
        self.gate = gate
        self._decision = decision
        stack = {
            "A": torch.cat([pair.right for pair in pairs]).to(dtype),
            "B": torch.cat([pair.left for pair in pairs], dim=1).to(dtype),
            "owner": torch.cat([torch.full((p.rank,), i) for i, p in enumerate(pairs)]),
        }
        for name, tensor in stack.items():
            self.register_buffer(name, tensor.to(weight.device), persistent=False)

    def tensors(self) -> dict[Key, nn.Parameter]:
        """The gate's, if it is here: experts do not train."""
        return {} if self.gate is None else self.gate.tensors()

    def forward(self, x: Tensor) -> Tensor:
        """(n, ..., in) to (n, ..., out)."""
        gates = self._decision.gates(self.site, x)[:, self.owner]  # (n, R)
        y: Tensor = self.base(x)
        z = F.linear(x.to(self.A.dtype), self.A)
        z = z * gates.reshape(len(x), *[1] * (z.dim() - 2), -1)
        return y + F.linear(z, self.B).to(y.dtype)


def _born(site: Site, experts: int, seed: int) -> dict[Key, Tensor]:
    """A gate's tensors at the first site of its layer."""
    shape, g = (experts, experts * site.out_features), generator(seed, "gate", site.name)
    tensors = {
        MIX: (2.0 * torch.rand(shape, generator=g, dtype=torch.float32) - 1.0) * (SPREAD * 3**0.5),
        LOG_TEMPERATURE: torch.zeros(1, dtype=torch.float32),
    }
    return {Key(site.name, Role.GATE, name): tensor for name, tensor in tensors.items()}


def _check_fit(expert: Expert, sites: Collection[Site]) -> None:
    """Every expert has a pair at every site, and nowhere else."""
    wanted = {site.name: (site.out_features, site.in_features) for site in sites}
    if missing := wanted.keys() - expert.pairs.keys():
        raise ValueError(
            f"experts: {expert.name} has nothing at {min(missing)}; adapt only what all "
            "experts have (target_modules, layers_to_transform)"
        )
    if left_out := expert.pairs.keys() - wanted.keys():
        raise ValueError(
            f"experts: {expert.name} also adapts {min(left_out)}, which would be left out; "
            "name it in target_modules"
        )
    for name, shape in wanted.items():
        if tuple(expert.pairs[name].shape) != shape:
            raise ValueError(
                f"experts: {expert.name} has a pair of shape "
                f"{tuple(expert.pairs[name].shape)} at {name}, which is {shape}: it was made for "
                "another base model"
            )
