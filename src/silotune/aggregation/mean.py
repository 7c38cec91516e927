"""Mean: average every tensor by itself (FedAvg on factors)."""

from dataclasses import dataclass

from silotune.core import Factors, GlobalState, Moments


@dataclass(frozen=True)
class Mean:
    """B' = E[B], A' = E[A] (FedIT, arXiv 2305.05644; FFA-LoRA, arXiv 2403.12313).

    Exact when one factor is common to all clients, as A is in FFA-LoRA; otherwise off by the
    covariance of B and A over clients.
    """

    @property
    def needs_product(self) -> bool:
        """It averages factors alone."""
        return False

    def combine(self, previous: GlobalState, mean: Moments) -> Factors:
        """The means, in the factors' own type."""
        return Factors({k: t.to(previous.factors[k].dtype) for k, t in mean.first.items()})
