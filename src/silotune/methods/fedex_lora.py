"""FedEx-LoRA (arXiv 2410.09432)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge

from silotune.aggregation import Aggregator, Residual
from silotune.schedules import Constant, Schedule

from .axes import PAIR
from .base import Kind, Method
from .options import About
from .plans import together


@dataclass(frozen=True, kw_only=True)
class FedExLoRA(Method):
    """FedEx-LoRA (Singhal et al. 2024, arXiv 2410.09432): FedIT, its error folded into the base.

    The residual E[BA] - E[B] E[A] has rank (K - 1) r and goes down beside the means.

    Attributes:
        residual_rank: keep the best approximation of that rank; None keeps all.
    """

    name: ClassVar[str] = "fedex-lora"
    title: ClassVar[str] = "FedEx-LoRA"
    sentence: ClassVar[str] = (
        "Both factors are averaged, and what their product then lacks is added to the frozen base"
    )
    kind: ClassVar[Kind] = Kind.COMBINING
    paper: ClassVar[str] = "2410.09432"
    exact: ClassVar[str] = "yes; with residual_rank, off by the residual's tail."
    noise: ClassVar[str] = "quadratic; averaging products divides its energy by K alone."
    up: ClassVar[str] = "r (out + in)"
    down: ClassVar[str] = "K r (out + in)"
    lends_rule: ClassVar[bool] = True

    residual_rank: Annotated[
        Annotated[int, Ge(1)] | None,
        About("Rank that the folded residual is cut back to; null = none.", of_rule=True),
    ] = None

    def schedule(self, *, head: bool) -> Schedule:
        """A and B in every round."""
        return Constant(together(PAIR, head))

    def aggregator(self) -> Aggregator:
        """The means, and the residual."""
        return Residual(rank=self.residual_rank)
