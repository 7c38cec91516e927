"""HetLoRA: means of factors whose ranks differ, filled up with zeros."""

from dataclasses import dataclass
from typing import ClassVar

from silotune.core import ClientMean, GlobalState

from .base import Aggregator, Combined, own_type


@dataclass(frozen=True, kw_only=True)
class Padded(Aggregator):
    """B' = E[B], A' = E[A] of pairs with zeros in the place of what they lack (arXiv 2401.06432).

    A client of rank r_i takes the first r_i columns of B and rows of A, and sends as many. What
    only clients of a high rank hold is diluted by the zeros of the others. Off by the covariance
    of the padded factors, as any mean of factors is. Privacy noise: as in the plain mean.

    Attributes:
        weighs_by_norm: every client counts for the norm of its products, all layers together.
    """

    needs_product: ClassVar[bool] = False  # it averages factors alone
    mixes_ranks: ClassVar[bool] = True
    pads: ClassVar[bool] = True
    keeps_basis: ClassVar[bool] = True  # they stay where they were
    leaves_base: ClassVar[bool] = True

    weighs_by_norm: bool = True

    def combine(self, previous: GlobalState, mean: ClientMean) -> Combined:
        """The means, in the factors' own type."""
        return Combined(factors=own_type(mean.first, previous))
