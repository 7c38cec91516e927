"""FedEx-LoRA: the means go out; what their product misses is folded into the frozen base.

The quadratic noise of local DP stays as it is: K times the energy that it has in a product of
means, since E[BA] does not average B's noise before it meets A's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from silotune.core import ClientMean, Factors, GlobalState
from silotune.linalg import Matrix, subtract, svd

from .base import Aggregator, Combined, own_type, resolution


@dataclass(frozen=True, kw_only=True)
class Residual(Aggregator):
    """B' = E[B], A' = E[A], R = E[BA] - B'A' (FedEx-LoRA, arXiv 2410.09432). Exact.

    R is the clients' covariance of B and A, of rank (K - 1) r; it is taken against B' and A' as
    they are broadcast. Singular values too small for the factors' type are left out, or the
    rounding of B' and A' alone would add 2 r to its rank. Privacy noise: quadratic, whole. Pairs
    stay in the basis of their means.

    Attributes:
        rank: of R at most: the best approximation of that rank (Eckart and Young), off by its
            tail. None: all of R.

    Raises:
        ValueError: if ``rank`` is not positive.
    """

    needs_product: ClassVar[bool] = True  # the residual is what E[BA] has beyond the means
    mixes_ranks: ClassVar[bool] = False  # its factors are means
    keeps_basis: ClassVar[bool] = True  # they stay where they were

    rank: int | None = None

    def __post_init__(self) -> None:
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"residual_rank: must be at least 1, not {self.rank}")

    def combine(self, previous: GlobalState, mean: ClientMean) -> Combined:
        """The means, and their residual at every site that has one."""
        factors = own_type(mean.first, previous)
        residual = {site: self._residual(m, factors, site) for site, m in mean.product.items()}
        return Combined(
            factors=factors, residual={s: m for s, m in residual.items() if m is not None}
        )

    def _residual(self, ideal: Matrix, factors: Factors, site: str) -> Matrix | None:
        pair = factors.pair(site)
        gap = subtract(ideal, pair.to(torch.float64))
        if isinstance(gap, torch.Tensor) and self.rank is None:
            return gap
        rest = svd(gap, self.rank, resolution(ideal, pair.left.dtype)).balanced()
        return rest if rest.rank else None
