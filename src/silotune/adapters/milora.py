"""MiLoRA, the mixture (Zhang et al. 2024, arXiv 2410.18035): whole LoRA modules as experts.

Not the initialisation by minor singular components of the same name (arXiv 2406.09044). Each of the
N adapted sites of a transformer layer carries one pair; a router looks at the prompt once and keeps
k of them:

    h = sum_t w_t H_t,  w = softmax_t(H u)          self-attention pooling over the prompt, H (T, d)
    p = softmax(W_r Ra(h))                          (N,)
    y_i = W_i x + g_i scale B_i A_i x,  g_i = N p_i if p_i is among the k largest, else 0
    Ra(x) = sum_{j=0..6} a_j x^j / (1 + |sum_{j=1..5} b_j x^j|)

H is what the first adapted site of the layer reads. The paper does not say whether a kept output is
multiplied by its probability; it must be, or the task would not train the router. We multiply by
N p_i, not renormalised over the kept ones: a module that is as probable as any is plain LoRA,
whatever k is, and the router learns from the task for k = 1 too.

a and b begin near GELU and move as theta / 100: one learning rate then serves both, with the
paper's ratio of 1e-6 to 1e-4 under AdamW. (The paper trains them on another half of the records, in
turns; here everything trains together, on the records that are accounted for.)

Balance, by record: L_lb = N sum_i f_i p_i with f_i = 1/k for the kept modules, 0 for the others, a
constant. It is 1 where p is uniform and no smaller anywhere. The paper has the fraction and the
mean of a batch for f and p, so that only the batch must be balanced; then one record's gradient
would depend on the others and nothing could be clipped. This form holds every single prompt near
the uniform distribution, so its weight should be small.

Nothing of it is merged, or held by PEFT: which modules are used differs from prompt to prompt.

Shapes: n examples, T positions, d features that a router reads, N modules, out, in, r rank.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from silotune.core import Context, Key, PerExampleGradients, Role, Site, generator

from .base import Adapter, Layer
from .lora import LoRA, refuse_in_weight
from .routing import Decision, blocks, expanded, mapped, prompt
from .site_layer import SiteLayer, zeros

GELU = (
    (-0.001492, 0.528491, 0.444999, 0.140205, 0.02139, 0.001916, 0.000109),
    (-0.217541, -0.043113, -0.10728, 0.017688, -0.001586),
)
"""a and b of the rational function that is nearest to GELU on [-5, 5]: off by 0.004 at most."""

SLOW = 0.01
"""What the activation's tensors are multiplied by."""

POOL, CHOICE, NUMERATOR, DENOMINATOR = "pool", "choice", "numerator", "denominator"
"""Names of a router's tensors: u (1, d), W_r (N, d), theta of a (7,) and of b (5,)."""


@dataclass(frozen=True, kw_only=True)
class MiLoRA(Adapter):
    """A router for each transformer layer over the pairs of its sites.

    Attributes:
        expert: what every module is.
        kept: k, how many of a layer's modules a prompt goes through; None for half of them, rounded
            down (3 of the paper's 7).
        balance_weight: of L_lb in every record's loss, per layer.

    Raises:
        ValueError: if a number is out of range.
    """

    recomputable: ClassVar[bool] = True
    routed: ClassVar[bool] = True
    no_start_because: ClassVar[str] = (
        "a router leaves some pairs out for each prompt and weighs the others, so that the run "
        "would not begin with what the adapter computes"
    )
    unsafe_because: ClassVar[str] = (
        "a router that keeps the best few jumps where two are alike, and the last digits that "
        "decide then depend on the other records of a batch: one record may reroute others, so "
        "clipping does not bound what it changes; use mole, whose gates are smooth"
    )

    expert: LoRA = field(default_factory=LoRA)
    kept: int | None = None
    balance_weight: float = 0.01

    def __post_init__(self) -> None:
        refuse_in_weight(self.expert.init)
        if self.kept is not None and self.kept < 1:
            raise ValueError(f"experts_per_prompt: must be at least 1, not {self.kept}")
        if self.balance_weight < 0:
            raise ValueError("balance_weight: must not be negative")

    @property
    def pairs_like(self) -> LoRA:
        """Every module; routers have no dropout, and are drawn."""
        return self.expert

    def frozen(self, site: Site) -> frozenset[Role]:
        """None: the schedule decides."""
        return frozenset()

    def initial_factors(self, site: Site, seed: int) -> Mapping[Role, Tensor]:
        """The pair, B = 0."""
        return self.expert.initial_factors(site, seed)

    def gates(self, sites: Sequence[Site], seed: int) -> Mapping[Key, Tensor]:
        """U = 0, so that pooling begins as the mean; W_r uniform in +-1/sqrt(d); theta = 0."""
        routers = [_born(own[0], len(own), seed) for own in _choices(sites).values()]
        return {key: tensor for router in routers for key, tensor in router.items()}

    def layers(
        self, sites: Sequence[Site], sink: PerExampleGradients, context: Context
    ) -> Mapping[str, Layer]:
        """Pairs beside their bases; the first of every transformer layer brings the router.

        A site that is alone in its layer is plain LoRA: there is nothing to choose.

        Raises:
            ValueError: if that is so everywhere, or more modules are kept than there are.
        """
        found = dict(self.expert.layers(sites, sink, context))
        choices = _choices(sites)
        if not choices:
            raise ValueError(
                "target_modules: milora chooses among the adapted modules of a layer, and "
                "each one is alone in its own; name more, or write all-linear"
            )
        for name, own in choices.items():
            router = Router(own, self._kept_of(own), self.balance_weight, sink, context)
            decision = Decision(name, own[0], router, context)
            for i, site in enumerate(own):
                first = router if i == 0 else None
                found[site.name] = MixedLinear(site, i, self.expert, sink, decision, first)
        return found

    def _kept_of(self, own: Sequence[Site]) -> int:
        if self.kept is not None and self.kept > len(own):
            raise ValueError(
                f"experts_per_prompt: {self.kept} of {len(own)} modules cannot be kept in "
                f"the layer of {own[0].name}"
            )
        return self.kept or len(own) // 2


class Router(nn.Module):
    """What one transformer layer decides by; its tensors are those of the layer's first site."""

    def __init__(
        self,
        own: Sequence[Site],
        kept: int,
        balance: float,
        sink: PerExampleGradients,
        context: Context,
    ) -> None:
        super().__init__()
        born = _born(own[0], len(own), 0)
        self._keys = {key.name: key for key in born}
        for key, tensor in born.items():
            self.register_parameter(key.name, zeros(own[0], *tensor.shape))
        self._kept, self._balance = kept, balance
        self._sink, self._context = sink, context

    def tensors(self) -> dict[Key, nn.Parameter]:
        """All of the router by key."""
        return {key: self.get_parameter(name) for name, key in self._keys.items()}

    def forward(self, x: Tensor) -> Tensor:
        """Gates (n, N) for the prompt ``x`` (n, T, d); leaves the penalty (n,)."""
        p = self.probabilities(x)
        chosen = p.topk(self._kept, dim=1).indices
        kept = torch.zeros_like(p).scatter(1, chosen, 1.0)
        if self._balance:
            share, terms = kept / self._kept, self._context.penalties
            balance = self._balance * p.shape[1] * (share * p).sum(dim=1)
            terms["balance", len(terms)] = lambda: balance
        return p.shape[1] * p * kept

    def probabilities(self, x: Tensor) -> Tensor:
        """P (n, N)."""
        seen = prompt(self._context, x)
        own = x.to(self.get_parameter(POOL).dtype).reshape(*seen.shape[:1], -1, x.shape[-1])
        h = self._pooled(own, seen.reshape(own.shape[:2]))
        return torch.softmax(self._map(self._activated(h), CHOICE), dim=1)

    def _pooled(self, x: Tensor, seen: Tensor) -> Tensor:
        """(n, d)."""
        scores = self._map(x, POOL).squeeze(-1)
        weights = torch.softmax(scores.masked_fill(~seen, torch.finfo(x.dtype).min), dim=1)
        return torch.einsum("nt,ntd->nd", weights, x)

    def _activated(self, h: Tensor) -> Tensor:
        """Ra(h) (n, d); the coefficients are each record's own copies."""
        a, b = (
            h.new_tensor(begin) + SLOW * self._copies(name, len(h))
            for begin, name in zip(GELU, (NUMERATOR, DENOMINATOR), strict=True)
        )
        powers = torch.stack([h**j for j in range(len(GELU[0]))], dim=1)  # (n, 7, d)
        above = torch.einsum("nj,njd->nd", a, powers)
        below = torch.einsum("nj,njd->nd", b, powers[:, 1 : 1 + len(GELU[1])])
        return above / (1.0 + below.abs())

    def _map(self, x: Tensor, name: str) -> Tensor:
        return mapped(x, self.get_parameter(name), self._sink, self._keys[name])

    def _copies(self, name: str, n: int) -> Tensor:
        return expanded(self.get_parameter(name), n, self._sink, self._keys[name])


class MixedLinear(SiteLayer):
    """One site with its pair, weighed by the layer's router. Replaces the base module."""

    no_fold: ClassVar[str] = (
        "a mixture is folded nowhere: a pair that not every prompt goes through is no part of the "
        "base"
    )
    no_merge: ClassVar[str] = (
        "which modules are used differs from prompt to prompt, so a mixture cannot be merged into "
        "one weight"
    )

    def __init__(
        self,
        site: Site,
        place: int,
        expert: LoRA,
        sink: PerExampleGradients,
        decision: Decision,
        router: Router | None,
    ) -> None:
        super().__init__(site)
        self.scale = expert.scale
        self.dropout = expert.dropout
        self.A = zeros(site, expert.rank, site.in_features)
        self.B = zeros(site, site.out_features, expert.rank)
        self.router = router
        self._place, self._decision, self._sink = place, decision, sink
        self._keys = (Key(site.name, Role.A), Key(site.name, Role.B))

    def tensors(self) -> dict[Key, nn.Parameter]:
        """The pair, and the router if it is here."""
        own = dict(zip(self._keys, (self.A, self.B), strict=True))
        return own if self.router is None else own | self.router.tensors()

    def forward(self, x: Tensor) -> Tensor:
        """(n, ..., in) to (n, ..., out)."""
        gate = self._decision.gates(self.site, x)[:, self._place]  # (n,)
        y: Tensor = self.base(x)
        own = x.to(self.A.dtype)
        if self.dropout and self.training and self._sink.is_open:
            own = F.dropout(own, self.dropout)
        z = mapped(own, self.A, self._sink, self._keys[0])
        z = z * (self.scale * gate).reshape(-1, *[1] * (z.dim() - 1))
        return y + mapped(z, self.B, self._sink, self._keys[1]).to(y.dtype)


def _choices(sites: Sequence[Site]) -> dict[str, list[Site]]:
    """Transformer layers with more than one site, by name."""
    return {name: own for name, own in blocks(sites).items() if len(own) > 1}


def _born(site: Site, modules: int, seed: int) -> dict[Key, Tensor]:
    """A router's tensors at the first site of its layer."""
    bound = 1.0 / math.sqrt(site.in_features)
    g = generator(seed, "router", site.name)
    choice = torch.rand(modules, site.in_features, generator=g, dtype=torch.float32)
    tensors = {
        POOL: torch.zeros(1, site.in_features, dtype=torch.float32),
        CHOICE: choice * (2 * bound) - bound,
        NUMERATOR: torch.zeros(len(GELU[0]), dtype=torch.float32),
        DENOMINATOR: torch.zeros(len(GELU[1]), dtype=torch.float32),
    }
    return {Key(site.name, Role.GATE, name): tensor for name, tensor in tensors.items()}
