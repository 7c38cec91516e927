"""MiLoRA, the mixture (arXiv 2410.18035)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge

from silotune import adapters
from silotune.core import Role
from silotune.schedules import Constant, Schedule

from .axes import PAIR
from .base import Kind, Method
from .options import About, BalanceWeight
from .plans import together


@dataclass(frozen=True, kw_only=True)
class MiLoRA(Method):
    """MiLoRA, the mixture (Zhang et al. 2024, arXiv 2410.18035): each prompt uses some pairs.

    A router in every transformer layer looks at the prompt and keeps a few of the layer's pairs;
    the others' layers are plain. Routers are averaged with the pairs: a module keeps its place, so
    their means have a meaning. The router of a layer with N > 1 adapted modules has (N + 1) in + 12
    numbers, which travel besides. Saved in a format of our own: nothing of it can be merged, and
    PEFT does not know it.

    No official code could be had, and of the paper only summaries were read. What they leave open
    is ours: that a kept pair is multiplied by its probability, renormalised over those kept; how
    many are kept (the paper's numbers of active parameters fit three of seven); the balance
    term, which is by record here so that it can be private. The paper trains the router's learned
    activation on a held-out half of the data, at a rate of its own; here all trains together.

    Attributes:
        experts_per_prompt: pairs of a layer that a prompt goes through; None for half of them.
        balance_weight: of the balance term in every record's loss.
    """

    name: ClassVar[str] = "milora"
    title: ClassVar[str] = "MiLoRA, the mixture"
    sentence: ClassVar[str] = (
        "In every transformer layer a router looks at the prompt and chooses which of the layer's "
        "pairs it goes through; pairs and routers are trained and averaged"
    )
    kind: ClassVar[Kind] = Kind.LAYER
    paper: ClassVar[str] = "2410.18035"
    exact: ClassVar[str] = (
        "no, off by the covariance of B and A over clients; nor is the mean of routers the mean of "
        "what they decide."
    )
    noise: ClassVar[str] = "quadratic, and through the routers."
    up: ClassVar[str] = "r (out + in)"
    down: ClassVar[str] = "r (out + in)"

    experts_per_prompt: Annotated[
        Annotated[int, Ge(1)] | None,
        About(
            "Adapted modules of a transformer layer that a prompt goes through; null = half of "
            "them, rounded down."
        ),
    ] = None
    balance_weight: BalanceWeight = adapters.MiLoRA.balance_weight

    def schedule(self, *, head: bool) -> Schedule:
        """Pairs and routers in every round."""
        return Constant(together({*PAIR, Role.GATE}, head))

    def adapter(self) -> adapters.Adapter:
        """Pairs behind routers."""
        return adapters.MiLoRA(
            expert=self.pair(), kept=self.experts_per_prompt, balance_weight=self.balance_weight
        )
