"""Mean: average every tensor by itself (FedAvg on factors)."""

from dataclasses import dataclass
from typing import ClassVar

from silotune.core import ClientMean, GlobalState

from .base import Aggregator, Combined, own_type


@dataclass(frozen=True)
class Mean(Aggregator):
    """B' = E[B], A' = E[A] (FedIT, arXiv 2305.05644; FFA-LoRA, arXiv 2403.12313).

    Exact when one factor is common to all clients, as A is in FFA-LoRA; otherwise off by the
    covariance of B and A over clients.
    """

    needs_product: ClassVar[bool] = False  # it averages factors alone
    mixes_ranks: ClassVar[bool] = False  # factors of unequal shapes have no mean
    keeps_basis: ClassVar[bool] = True  # they stay where they were
    leaves_base: ClassVar[bool] = True
    replaceable: ClassVar[bool] = True

    def combine(self, previous: GlobalState, mean: ClientMean) -> Combined:
        """The means, in the factors' own type."""
        return Combined(factors=own_type(mean.first, previous))
