"""FLoRA (arXiv 2409.05976)."""

from dataclasses import dataclass
from typing import ClassVar

from silotune.aggregation import Aggregator, Fold
from silotune.schedules import Chain, Schedule

from .axes import PAIR
from .base import Kind, Method
from .plans import together


@dataclass(frozen=True, kw_only=True)
class FLoRA(Method):
    """FLoRA (Wang et al. 2024, arXiv 2409.05976): stack the products, fold them, begin afresh.

    Clients may have ranks of their own; then K r stands for the sum of their ranks. B = 0 at the
    start of every round, so the first local steps move little.
    """

    name: ClassVar[str] = "flora"
    title: ClassVar[str] = "FLoRA"
    sentence: ClassVar[str] = (
        "The mean of the silos' products is added to the frozen base, and every round begins with "
        "a fresh pair"
    )
    kind: ClassVar[Kind] = Kind.COMBINING
    paper: ClassVar[str] = "2409.05976"
    exact: ClassVar[str] = "yes."
    noise: ClassVar[str] = "quadratic; averaging products divides its energy by K alone."
    up: ClassVar[str] = "r (out + in)"
    down: ClassVar[str] = "K r (out + in)"

    def schedule(self, *, head: bool) -> Schedule:
        """A fresh pair in every round."""
        return Chain(together(PAIR, head))

    def aggregator(self) -> Aggregator:
        """The stack, folded."""
        return Fold()
