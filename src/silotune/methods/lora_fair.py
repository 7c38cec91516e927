"""LoRA-FAIR (arXiv 2411.14961)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from silotune.aggregation import Aggregator, FairCosine, FairRidge
from silotune.schedules import Chain, Constant, Schedule

from .axes import PAIR
from .base import Kind, Method
from .options import About
from .plans import together


@dataclass(frozen=True, kw_only=True)
class LoRAFAIR(Method):
    """LoRA-FAIR (Bian et al. 2024, arXiv 2411.14961): the mean of A, and a corrected mean of B.

    Of the paper's three ways to begin a round, ``average`` is its choice and ``fresh`` its
    Re-Initial: the pair is folded into the base and another one drawn. Local-Initial, in which
    clients go on with a pair of one client's, is left out: the paper's text could not be read for
    whose pair that is, and the server has means, never one client's pair.

    Attributes:
        objective: the paper's, of cosine and norm; or ours, the squared error with a ridge.
        fair_lambda: the paper's lambda, in units of 1 / |B|.
        fair_norm: of the correction: itself, or its square.
        fair_ridge: how strongly B is held at its mean by the squared error.
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
        "no, what E[BA] has outside the row space of A is lost; with objective ridge never worse "
        "than FedIT."
    )
    noise: ClassVar[str] = "quadratic; the penalty damps it."
    up: ClassVar[str] = "r (out + in)"
    down: ClassVar[str] = "r (out + in)"
    lends_rule: ClassVar[bool] = True

    objective: Annotated[
        Literal["cosine", "ridge"],
        About(
            "What the corrected B minimises: one minus the cosine of the products, plus lambda "
            "times the norm of the correction (the paper); or the squared error, solved at once.",
            of_rule=True,
        ),
    ] = "cosine"
    fair_lambda: Annotated[
        float,
        Ge(0),
        About(
            "With objective cosine, the weight of the correction's norm; not relative to B, so "
            "that a large B is left at its mean.",
            of_rule=True,
        ),
    ] = FairCosine.strength
    fair_norm: Annotated[
        Literal["plain", "squared"],
        About(
            "With objective cosine, the norm itself (the paper), or its square (public "
            "re-implementations).",
            of_rule=True,
        ),
    ] = "plain"
    fair_ridge: Annotated[
        float,
        Ge(0),
        About(
            "With objective ridge, how strongly B is held at its mean, relative to A A^T: 0.01 "
            "keeps 99 % of the whole correction.",
            of_rule=True,
        ),
    ] = FairRidge.ridge
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
        if self.objective == "ridge":
            return FairRidge(ridge=self.fair_ridge)
        return FairCosine(strength=self.fair_lambda, squared=self.fair_norm == "squared")
