"""XGBLoRA (arXiv 2410.19694)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt

from silotune.aggregation import Aggregator, Fold
from silotune.optim import OptimizerConfig, PenaltyConfig
from silotune.schedules import Boost, Schedule

from .axes import PAIR
from .base import Kind, Method
from .options import About
from .plans import together


@dataclass(frozen=True, kw_only=True)
class XGBLoRA(Method):
    """XGBLoRA (Zhang et al. 2024, arXiv 2410.19694): rank-1 boosters on a few layers a round.

    A round is one booster: a seed draws some of the model's layers, their pairs are trained,
    stacked and folded, and fresh ones begin. Only drawn layers travel, so the numbers below are of
    each of these. The paper's rank is 1, which is the default of ``r`` here; more is
    allowed.

    Attributes:
        penalty: lambda of the paper's objective, loss + lambda (|A|^2 + |B|^2); its experiments
            have none.
        booster_weight: what a booster counts for when it is folded; the paper has 1.
        booster_layers: layers that a round draws; None for a third of them.
        booster_seed: decides which. Not the run's seed, so that repetitions may share the layers.
    """

    name: ClassVar[str] = "xgblora"
    title: ClassVar[str] = "XGBLoRA"
    sentence: ClassVar[str] = (
        "Every round draws a few layers by a seed, trains small pairs there, and adds the mean of "
        "the silos' products to the frozen base"
    )
    kind: ClassVar[Kind] = Kind.CHAIN
    paper: ClassVar[str] = "2410.19694"
    exact: ClassVar[str] = "yes, at booster_weight 1."
    noise: ClassVar[str] = "quadratic; averaging products divides its energy by K alone."
    up: ClassVar[str] = "r (out + in)"
    down: ClassVar[str] = "K r (out + in)"

    r: Annotated[int, Ge(1), About("Rank of a booster.")] = 1
    lora_alpha: Annotated[float, Gt(0), About("Boosters are scaled by lora_alpha / r.")] = 1.0
    penalty: Annotated[
        float,
        Ge(0),
        About("Weight of the squared norms of A and B in the loss of every local step."),
    ] = 0.0
    booster_weight: Annotated[
        float, Gt(0), About("What a booster counts for when it is added to the base.")
    ] = Fold.weight
    booster_layers: Annotated[
        Annotated[int, Ge(1)] | None,
        About("Layers that a round draws; null = a third of them."),
    ] = None
    booster_seed: Annotated[int, Ge(0), About("Seed by which they are drawn.")] = 0

    def schedule(self, *, head: bool) -> Schedule:
        """The pairs of a few layers, folded after every round; the head in every round."""
        link = together(PAIR, head)
        return Boost(link=link, layers=self.booster_layers, seed=self.booster_seed)

    def optimizer(self, given: OptimizerConfig) -> OptimizerConfig:
        """As it is given, with the penalty."""
        return PenaltyConfig(given, self.penalty) if self.penalty else given

    def aggregator(self) -> Aggregator:
        """The stack, folded with the booster's weight."""
        return Fold(weight=self.booster_weight)
