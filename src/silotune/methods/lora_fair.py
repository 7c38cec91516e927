"""LoRA-FAIR (arXiv 2411.14961)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from silotune.aggregation import Aggregator, Fair, FairCosine
from silotune.schedules import Chain, Constant, Schedule

from .axes import PAIR
from .base import Kind, Method
from .options import About
from .plans import together


@dataclass(frozen=True, kw_only=True)
class LoRAFAIR(Method):
    """LoRA-FAIR (Bian et al. 2024, arXiv 2411.14961): the mean of A, and a corrected mean of B.

    Of the paper's three ways to begin a round, ``average`` is its choice and ``fresh`` its
    Re-Initial: the pair is folded into the base and another one drawn. Local-Initial, in which all
    go on with one client's pair, is left out: the server has means, and never one client's pair.

    Attributes:
        objective: the squared error, solved at once; or the paper's cosine, by gradient steps.
        fair_lambda: how strongly B is held at its mean.
        initialization: what a round begins from: the corrected average, or a fresh pair.
    """

    name: ClassVar[str] = "lora-fair"
    title: ClassVar[str] = "LoRA-FAIR"
    sentence: ClassVar[str] = (
        "Both factors are averaged, and B is corrected towards the mean of the silos' products"
    )
    kind: ClassVar[Kind] = Kind.COMBINING
    paper: ClassVar[str] = "2411.14961"
    exact: ClassVar[str] = (
        "no, what E[BA] has outside the row space of A is lost; in closed form never worse than "
        "FedIT."
    )
    noise: ClassVar[str] = "quadratic; the ridge damps it."
    up: ClassVar[str] = "r (out + in)"
    down: ClassVar[str] = "r (out + in)"
    lends_rule: ClassVar[bool] = True

    objective: Annotated[
        Literal["closed-form", "cosine"],
        About(
            "What the corrected B minimises: the squared error; or the paper's cosine, by gradient "
            "steps.",
            of_rule=True,
        ),
    ] = "closed-form"
    fair_lambda: Annotated[
        float, Ge(0), About("How strongly the corrected B is held at its mean.", of_rule=True)
    ] = 0.01
    initialization: Annotated[
        Literal["average", "fresh"],
        About(
            "What a round begins from: the corrected average; or a fresh pair, the last one being "
            "folded into the base."
        ),
    ] = "average"

    def schedule(self, *, head: bool) -> Schedule:
        """A and B in every round, folded after it where rounds begin afresh."""
        plan = together(PAIR, head)
        return Chain(plan) if self.initialization == "fresh" else Constant(plan)

    def aggregator(self) -> Aggregator:
        """The mean of A, and B corrected."""
        if self.objective == "closed-form":
            return Fair(ridge=self.fair_lambda)
        return FairCosine(ridge=self.fair_lambda)
