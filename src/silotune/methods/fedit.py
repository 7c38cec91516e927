"""FedIT (arXiv 2305.05644)."""

from dataclasses import dataclass
from typing import ClassVar

from silotune.schedules import Constant, Schedule

from .axes import PAIR
from .base import Kind, Method
from .plans import together


@dataclass(frozen=True, kw_only=True)
class FedIT(Method):
    """FedIT (Zhang et al. 2024, arXiv 2305.05644): train both factors, average each by itself.

    The mean of products is not the product of means: the aggregation error is reported.
    """

    name: ClassVar[str] = "fedit"
    title: ClassVar[str] = "FedIT"
    sentence: ClassVar[str] = (
        "Both factors are trained and each is averaged by itself; the mean of products is not the "
        "product of means, which is the aggregation error"
    )
    kind: ClassVar[Kind] = Kind.SHARING
    paper: ClassVar[str] = "2305.05644"
    exact: ClassVar[str] = "no, off by the covariance of B and A over clients."
    noise: ClassVar[str] = "quadratic; the product of means divides its energy by K^2."
    up: ClassVar[str] = "r (out + in)"
    down: ClassVar[str] = "r (out + in)"

    def schedule(self, *, head: bool) -> Schedule:
        """A and B in every round."""
        return Constant(together(PAIR, head))
