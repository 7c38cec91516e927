"""LoRA-SB (Ponkshe et al. 2024, arXiv 2411.19557): only a core R (r, r) trains, between B and A.

    y = W x + scale B R A x,    A (r, in) and B (out, r) frozen, R = 0 at the start

r^2 numbers move and travel a site, whatever its size, and their mean over clients is exact. What
a rank can reach is decided by where A and B begin. The paper takes them from the first step of
full fine-tuning, U S V^T of a gradient on training data, and R from S: that is a statistic of
records, which would have to be gathered and, under privacy, noised and charged. Here they are
public: drawn from the seed, or the principal singular vectors of the base weight, as in LoRA-XS
(arXiv 2405.17604). With orthonormal rows and columns, |B R A| = |R|.

Shapes: out, in, r rank.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from silotune.core import Context, Crowd, Key, PerExampleGradients, Role, Site, generator
from silotune.linalg import orthonormal_rows

from .base import NO_DROPOUT, Adapter, Layer, check_pair, pair_scale
from .crowd_kernels import own_linear
from .kernels import merged_core, rows_linear
from .lora import Init, refuse_in_weight
from .principal import principal
from .site_layer import SiteLayer, zeros


@dataclass(frozen=True, kw_only=True)
class LoRASB(Adapter):
    """``y = W x + scale B R A x`` with scale = alpha/r, or alpha/sqrt(r); R alone trains.

    Attributes:
        init: of A and B: orthonormal; Kaiming-uniform rows of A and columns of B; or the principal
            singular vectors of the public base weight.

    Raises:
        ValueError: if the rank is not positive or the dropout not in [0, 1).
    """

    per_example_safe: ClassVar[bool] = True
    multilinear: ClassVar[bool] = True
    fits_peft: ClassVar[bool] = True  # as the pair of B R and A
    recomputable: ClassVar[bool] = True
    no_start_because: ClassVar[str] = (
        "its A and B are drawn, and never train, so that no trained pair can take their place"
    )

    rank: int = 8
    alpha: float = 8.0
    dropout: float = 0.0
    rslora: bool = False
    init: Init = Init.ORTHONORMAL

    def __post_init__(self) -> None:
        check_pair(self.rank, self.dropout)
        refuse_in_weight(self.init)

    @property
    def crowdable(self) -> bool:
        """Without dropout: its coins are a client's own, and torch has one stream of them."""
        return not self.dropout

    @property
    def not_crowdable_because(self) -> str:
        """That it drops inputs."""
        return NO_DROPOUT

    @property
    def scale(self) -> float:
        """What the adapted layer multiplies B R A by."""
        return pair_scale(self.alpha, self.rank, self.rslora)

    @property
    def seeded(self) -> bool:
        """As for a plain pair."""
        return self.init is not Init.SVD

    def layers(
        self, sites: Sequence[Site], sink: PerExampleGradients, context: Context
    ) -> Mapping[str, Layer]:
        """Cores beside their bases."""
        return {s.name: CoreLinear(s, self.scale, self.rank, self.dropout, sink) for s in sites}

    def frozen(self, site: Site) -> frozenset[Role]:
        """A and B."""
        return frozenset({Role.A, Role.B})

    def initial_factors(self, site: Site, seed: int) -> Mapping[Role, Tensor]:
        """A (r, in), B (out, r) and R = 0 (r, r), float32 on the CPU, from (seed, site) alone.

        Raises:
            ValueError: if so many vectors do not fit into the site's smaller side.
        """
        smaller = min(site.out_features, site.in_features)
        if self.init is Init.ORTHONORMAL and self.rank > smaller:
            raise ValueError(
                f"r: {site.name} has {smaller} features on its smaller side, and r = {self.rank} "
                "orthonormal directions do not fit into them"
            )
        a, b = self._ends(site, generator(seed, "A", site.name), generator(seed, "B", site.name))
        return {
            Role.A: a,
            Role.B: b,
            Role.R: torch.zeros(self.rank, self.rank, dtype=torch.float32),
        }

    def _ends(
        self, site: Site, of_a: torch.Generator, of_b: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        match self.init:
            case Init.ORTHONORMAL:
                a = orthonormal_rows(self.rank, site.in_features, of_a)
                return a, orthonormal_rows(self.rank, site.out_features, of_b).T.contiguous()
            case Init.KAIMING:
                a = _uniform(self.rank, site.in_features, of_a)
                return a, _uniform(self.rank, site.out_features, of_b).T.contiguous()
            case _:
                found = principal(site, self.rank)
                return found.right.float().contiguous(), found.left.float().contiguous()


class CoreLinear(SiteLayer):
    """One site with its core. Replaces the base module inside the model.

    Where the base is a plain matrix of the core's own type, the layer runs on the merged weight; a
    half-precision or quantised base, or dropout, keeps the core beside it in float32.
    """

    no_fold: ClassVar[str] = "a core trains here between two frozen factors, and none is folded"

    def __init__(
        self, site: Site, scale: float, rank: int, dropout: float, sink: PerExampleGradients
    ) -> None:
        super().__init__(site)
        self.scale = scale
        self.dropout = dropout
        self.A = zeros(site, rank, site.in_features)
        self.B = zeros(site, site.out_features, rank)
        self.R = zeros(site, rank, rank)
        self._sink = sink
        self._key = Key(site.name, Role.R)

    def tensors(self) -> dict[Key, nn.Parameter]:
        """A, B and R by key."""
        site = self._key.site
        return {Key(site, Role.A): self.A, Key(site, Role.B): self.B, self._key: self.R}

    def delta(self) -> Tensor:
        """Scale B R A."""
        return self.scale * (self.B.detach() @ self.R.detach() @ self.A.detach())

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        if self._sink.crowd is not None:
            return self._of_each(x, self._sink.crowd)
        dropout = self.dropout if self.training and self._sink.is_open else 0.0
        if dropout or not self.is_plain(self.A):
            return self._beside(x, dropout)
        weight = self.weight.T if self.transposed else self.weight
        if not (self._sink.is_open and self.R.requires_grad):
            merged = torch.addmm(weight, self.B @ self.R, self.A, alpha=self.scale)
            return F.linear(x, merged, self.bias)
        factors = (self.A, self.B, self.R)
        base = (weight, self.bias)
        return merged_core(x, base, factors, self.scale, self._sink, self._key, self.records)

    def _of_each(self, x: Tensor, crowd: Crowd) -> Tensor:
        """With the core of each record's client, in its own precision."""
        y: Tensor = self.base(x)
        z = self._sink.rows(self._key, F.linear(x.to(self.A.dtype), self.A), self.records)
        own = (crowd.own(self._key, self.R), None)
        z = own_linear(z, (self.R, None), own, 1.0, self._sink, [self._key])
        z = self.records.back(z, x.shape[:-1])
        return y + (F.linear(z, self.B) * self.scale).to(y.dtype)

    def _beside(self, x: Tensor, dropout: float) -> Tensor:
        """The core in its own precision, added to the base's output."""
        y: Tensor = self.base(x)
        z = F.linear(F.dropout(x, dropout).to(self.A.dtype), self.A)
        if self._sink.is_open and self.R.requires_grad:
            z = rows_linear(z, self.R, None, 1.0, self._sink, [self._key], self.records)
        else:
            z = F.linear(z, self.R)
        return y + (F.linear(z, self.B) * self.scale).to(y.dtype)


def _uniform(rows: int, columns: int, g: torch.Generator) -> Tensor:
    bound = 1.0 / math.sqrt(columns)
    return torch.rand(rows, columns, generator=g, dtype=torch.float32) * (2 * bound) - bound
