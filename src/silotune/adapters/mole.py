"""MoLE, Mixture of LoRA Experts (Wu et al. 2024, arXiv 2404.13628): gates over trained adapters.

Stage 1 is not here: it is N runs that leave adapters, such as those of single silos. Here they are
frozen, a part of the base that is not merged into it, and only gates (and a head) train. For each
transformer layer, block or matrix one gate looks at the prompt, once, and all adapted sites that it
serves follow:

    y = W x + sum_i G_i s_i B_i A_i x
    G = softmax(e z / tau),   z = E / |E|,   E = [E_1 .. E_N],   E_i = s_i B_i A_i x

E_i is what expert i adds at the first of these sites, for the positions that ``mole_gate`` says. e
is drawn uniformly with the released code's standard deviation of 0.01; tau = exp(theta) is learned,
theta = 0 at birth, so that it stays positive. (Clients' means of theta are geometric ones of tau.)

Balance, by record: L_bal = -sum_i log q_i with q_i the mean of G_i over the gates of the model; its
minimum is N log N, where all experts are used alike. The paper weighs it by 0.5. The released code
makes it of detached numbers, so that it trains nothing; here it has a gradient.

An expert that is masked has G_i = 0, and the others' gates grow in proportion: a softmax over the
logits that are left. Nothing is trained again.

The scale of an expert is inside its pairs: experts may have ranks and scales of their own, and what
is folded is a part of the pair, as in PEFT's format. Experts must be made for this very base model.

Shapes: n examples, N experts, out, in, R sum of the experts' ranks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from silotune.core import Context, Factors, Key, PerExampleGradients, Role, Site
from silotune.linalg import LowRank

from .base import Adapter, Layer
from .mole_balance import Balance
from .mole_gate import Gate, GateInput, born_gate
from .peft_pairs import read_pairs, refuse_other_base
from .routing import Decision, blocks
from .site_layer import SiteLayer, own_dtype

Granularity = Literal["layer", "block", "matrix"]
"""Whom one gate serves: all adapted sites of a transformer layer, of a block of it (attention, feed
forward, whatever the model names below the layer's number), or one."""


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
        gate_input: what a gate reads.
        positions: of a prompt that it reads, unless it reads their mean.
        granularity: whom it serves.

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
    gate_input: GateInput = "outputs"
    positions: int = 64
    granularity: Granularity = "layer"

    def __post_init__(self) -> None:
        if self.positions < 1:
            raise ValueError("gate_positions: a gate must read one position at least")
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
        """As ``born_gate`` draws them."""
        reads = self.gate_input, self.positions
        born = [
            born_gate(own[0], len(self.experts), seed, *reads)
            for own in self._served(sites).values()
        ]
        return {key: tensor for gate in born for key, tensor in gate.items()}

    def _served(self, sites: Sequence[Site]) -> dict[str, list[Site]]:
        """Sites by the gate that serves them, in order."""
        if self.granularity == "layer":
            return blocks(sites)
        if self.granularity == "matrix":
            return {site.name: [site] for site in sites}
        found: dict[str, list[Site]] = {}
        for layer, own in blocks(sites).items():
            for site in own:
                within = site.name.removeprefix(f"{layer}.").split(".")[0]
                found.setdefault(f"{layer}.{within}" if layer else "", []).append(site)
        return found

    def layers(
        self, sites: Sequence[Site], sink: PerExampleGradients, context: Context
    ) -> Mapping[str, Layer]:
        """All experts beside every base; the first site that a gate serves brings it.

        Raises:
            ValueError: if there are fewer than two experts, or one does not fit the sites.
        """
        if len(self.experts) < 2:
            raise ValueError("experts: list two adapter folders or more")
        for expert in self.experts:
            _check_fit(expert, sites)
        found: dict[str, Layer] = {}
        kept = [expert.name not in self.masked for expert in self.experts]
        balance = Balance(self.balance_weight, context)
        for name, own in self._served(sites).items():
            pairs = [expert.pairs[own[0].name] for expert in self.experts]
            reads = self.gate_input, self.positions
            gate = Gate(own[0], pairs, kept, sink, context, balance, *reads)
            decision = Decision(name, own[0], gate, context)
            for i, site in enumerate(own):
                pairs = [expert.pairs[site.name] for expert in self.experts]
                found[site.name] = ExpertLinear(site, pairs, decision, gate if i == 0 else None)
        return found


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
