"""FLoRA (arXiv 2409.05976)."""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from silotune.aggregation import Aggregator, Fold
from silotune.schedules import Chain, Schedule

from .axes import PAIR
from .base import Kind, Method
from .options import About
from .plans import together


@dataclass(frozen=True, kw_only=True)
class FLoRA(Method):
    """FLoRA (Wang et al. 2024, arXiv 2409.05976): stack the products, fold them, begin afresh.

    Clients may have ranks of their own; then K r stands for the sum of their ranks. B = 0 at the
    start of every round, so the first local steps move little.

    Attributes:
        initial_a: whether every client begins a round with an A of its own, drawn from seed and
            name, as in the authors' code: the stack then has a higher rank.
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

    initial_a: Annotated[
        Literal["own", "shared"],
        About(
            "What A a silo begins a round with: one of its own (the authors' code), drawn from the "
            "seed and its name so that nothing travels; or the same for all."
        ),
    ] = "own"

    def schedule(self, *, head: bool) -> Schedule:
        """A fresh pair in every round."""
        link = together(PAIR, head)
        return Chain(replace(link, own_start=self.initial_a == "own"))

    def aggregator(self) -> Aggregator:
        """The stack, folded."""
        return Fold()
