"""Exact rules: what the factors cannot hold is folded into the frozen base.

Both carry the quadratic noise of local DP as it is: K times the energy that it has in a product of
means, since E[BA] does not average B's noise before it meets A's.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from silotune.algebra import Matrix, subtract, svd
from silotune.core import Factors, GlobalState, Key, Moments, Role

from .base import Aggregator, Combined, own_type, resolution


@dataclass(frozen=True, kw_only=True)
class Residual(Aggregator):
    """B' = E[B], A' = E[A], R = E[BA] - B'A' (FedEx-LoRA, arXiv 2410.09432). Exact.

    R is the clients' covariance of B and A, of rank (K - 1) r; it is taken against B' and A' as
    they are broadcast. Singular values too small for the factors' type are left out, or the
    rounding of B' and A' alone would add 2 r to its rank. Privacy noise: quadratic, whole. Local
    optimisers begin afresh, in the basis of the means.

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
            raise ValueError(f"method.residual_rank: must be at least 1, not {self.rank}")

    def combine(self, previous: GlobalState, mean: Moments) -> Combined:
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


@dataclass(frozen=True)
class Fold(Aggregator):
    """B' = 0, R = E[BA] (FLoRA, arXiv 2409.05976). Exact, for clients of any ranks.

    A' stays as it is until the schedule begins a fresh pair. Privacy noise: quadratic, whole. Local
    optimisers begin afresh; in the fresh basis nothing else would make sense.
    """

    needs_product: ClassVar[bool] = True  # it folds the whole of E[BA]
    mixes_ranks: ClassVar[bool] = True  # it reads no factor
    keeps_basis: ClassVar[bool] = False  # a fresh pair has another

    def combine(self, previous: GlobalState, mean: Moments) -> Combined:
        """All of every product into the base; what is shared besides is averaged."""
        pairs = {Key(site, role) for site in mean.product for role in (Role.A, Role.B)}
        zeros = {
            Key(site, Role.B): torch.zeros_like(previous.factors[Key(site, Role.B)])
            for site in mean.product
        }
        others = own_type(mean.first.without(pairs), previous)
        return Combined(factors=others.updated(zeros), residual=dict(mean.product))
