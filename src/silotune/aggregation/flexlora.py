"""FlexLoRA: the exact mean, cut back to the rank of a pair."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from silotune.core import ClientMean, Factors, GlobalState, Key, Role
from silotune.linalg import Matrix, svd

from .base import Aggregator, Combined, filled, own_type, resolution


@dataclass(frozen=True, kw_only=True)
class Truncate(Aggregator):
    """B'A' = SVD_r(E[BA]), R = 0 (FlexLoRA, arXiv 2402.11505), for clients of any ranks.

    The least error that a pair of that rank can have: the tail of the singular values. Columns are
    sorted by them, so a client of lower rank takes the first ones and has the best of its own.
    Components that the mean does not need begin afresh, B' = 0 and A' as it was, since a pair of
    zeros would never move again. With ``scales_by_rank``, as in the paper's code, a client of rank
    r_i trains at alpha / r_i, and what it begins from and sends is written in the shared adapter's
    scale: s_i B_i A_i is what is pooled, and nothing here sees a scale. Privacy noise: quadratic,
    cut along with the tail. The basis is new in every round, in which most local optimisers must
    begin afresh.

    Attributes:
        rank: of B'A' at most.
        scales_by_rank: see above; False trains all at the scale of the largest rank.
        balanced: the square root of every singular value goes to either factor, so that both see
            gradients alike. False, as in the paper: all of it goes into B', the rows of A' are
            orthonormal, and A' learns much more slowly than B'.

    Raises:
        ValueError: if ``rank`` is not positive, or more than the pairs hold.
    """

    needs_product: ClassVar[bool] = True  # it decomposes E[BA]
    mixes_ranks: ClassVar[bool] = True  # it reads no factor
    keeps_basis: ClassVar[bool] = False  # singular vectors turn from round to round
    leaves_base: ClassVar[bool] = True

    rank: int
    balanced: bool = True
    scales_by_rank: bool = True

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"r: must be at least 1, not {self.rank}")

    def combine(self, previous: GlobalState, mean: ClientMean) -> Combined:
        """The best pair at every site; what is shared besides is averaged."""
        factors = dict(mean.first)
        for site, ideal in mean.product.items():
            b, a = Key(site, Role.B), Key(site, Role.A)
            factors[b], factors[a] = self._pair(ideal, previous.factors[a])
        return Combined(factors=own_type(Factors(factors), previous))

    def _pair(self, ideal: Matrix, before: Tensor) -> tuple[Tensor, Tensor]:
        """B' (out, r) and A' (r, in), where ``before`` is A (r, in)."""
        r = len(before)
        if self.rank > r:
            raise ValueError(f"r: {self.rank} is more than the {r} of the pairs")
        spectrum = svd(ideal, self.rank, resolution(ideal, before.dtype))
        best = spectrum.balanced() if self.balanced else spectrum.heavy_left()
        return filled(best, before)
