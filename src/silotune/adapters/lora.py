"""LoRA (Hu et al. 2021, arXiv 2106.09685): a pair B A beside a frozen matrix, B = 0 at birth.

With A frozen this is the adapter of FFA-LoRA (Sun et al. 2024, arXiv 2403.12313): the update moves
by ``-eta scale^2 G A^T A``, so rows of norm 1 (orthonormal, svd) mean a learning rate three times
that of Kaiming-uniform rows (A A^T about I/3). Tune it again when the initialisation changes.

Shapes: out, in, r rank.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

import torch
from torch import Tensor

from silotune.core import Context, PerExampleGradients, Role, Site, generator
from silotune.linalg import orthonormal_rows

from .base import Adapter, Layer, check_pair, pair_scale
from .linear import AdaptedLinear
from .principal import principal


class Init(StrEnum):
    """How A begins."""

    KAIMING = "kaiming"  # U(-1/sqrt(in), 1/sqrt(in)), as in the paper and in PEFT
    ORTHONORMAL = "orthonormal"  # A A^T = I
    SVD = (
        "svd"  # top r right singular vectors of the public base weight (PiSSA's directions, B = 0)
    )


@dataclass(frozen=True, kw_only=True)
class LoRA(Adapter):
    """``y = W x + scale B A x`` with scale = alpha/r, or alpha/sqrt(r) (rsLoRA, arXiv 2312.03732).

    Raises:
        ValueError: if the rank is not positive or the dropout not in [0, 1).
    """

    per_example_safe: ClassVar[bool] = True  # a matrix product of every record's own
    whole_pair: ClassVar[bool] = True
    foldable: ClassVar[bool] = True
    fits_peft: ClassVar[bool] = True
    recomputable: ClassVar[bool] = True
    starts_from_pairs: ClassVar[bool] = True
    serves_experts: ClassVar[bool] = True

    rank: int = 8
    alpha: float = 8.0
    dropout: float = 0.0
    rslora: bool = False
    init: Init = Init.KAIMING

    def __post_init__(self) -> None:
        check_pair(self.rank, self.dropout)

    @property
    def scale(self) -> float:
        """What the adapted layer multiplies B A by."""
        return pair_scale(self.alpha, self.rank, self.rslora)

    @property
    def seeded(self) -> bool:
        """An SVD differs between machines in its last bits; the other two do not."""
        return self.init is not Init.SVD

    def layers(
        self, sites: Sequence[Site], sink: PerExampleGradients, context: Context
    ) -> Mapping[str, Layer]:
        """Pairs beside their bases."""
        return {s.name: AdaptedLinear(s, self.scale, self.rank, self.dropout, sink) for s in sites}

    def frozen(self, site: Site) -> frozenset[Role]:
        """None: the schedule decides."""
        return frozenset()

    def initial_factors(self, site: Site, seed: int) -> Mapping[Role, Tensor]:
        """B = 0 (out, r) and A (r, in), float32 on the CPU, from (seed, site) alone."""
        return {
            Role.A: self._a(site, generator(seed, "A", site.name)),
            Role.B: torch.zeros(site.out_features, self.rank, dtype=torch.float32),
        }

    def _a(self, site: Site, g: torch.Generator) -> Tensor:
        match self.init:
            case Init.KAIMING:
                bound = 1.0 / math.sqrt(site.in_features)
                shape = (self.rank, site.in_features)
                return torch.rand(shape, generator=g, dtype=torch.float32) * (2 * bound) - bound
            case Init.ORTHONORMAL:
                return orthonormal_rows(self.rank, site.in_features, g)
            case Init.SVD:
                return principal(site, self.rank).right.float().contiguous()
