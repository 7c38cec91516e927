"""FedRot-LoRA (arXiv 2602.23638)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt, Le

from silotune.schedules import Schedule, Turning

from .axes import PAIR
from .base import Kind, Method
from .options import About
from .plans import together


@dataclass(frozen=True, kw_only=True)
class FedRotLoRA(Method):
    """FedRot-LoRA (Zhang et al. 2026, arXiv 2602.23638): pairs are turned alike, then averaged.

    A silo's pair may be written in any basis of its rank, and the mean of factors mixes up those
    that differ. Before it sends its pair, every silo turns it towards the one that the round began
    with: A decides in odd rounds, B in even ones, and nothing in round 0.

    Attributes:
        rotation_lambda: how far; below 1 the nearest rotation on the way, without reflections.
    """

    name: ClassVar[str] = "fedrot-lora"
    title: ClassVar[str] = "FedRot-LoRA"
    sentence: ClassVar[str] = (
        "Silos turn their pairs towards the basis that the round began in, and both factors are "
        "averaged"
    )
    kind: ClassVar[Kind] = Kind.COMBINING
    paper: ClassVar[str] = "2602.23638"
    exact: ClassVar[str] = "no, off by the covariance of the turned B and A."
    noise: ClassVar[str] = "quadratic, as FedIT's."
    up: ClassVar[str] = "r (out + in)"
    down: ClassVar[str] = "r (out + in)"

    rotation_lambda: Annotated[
        float,
        Gt(0),
        Le(1),
        About("How far pairs turn towards the basis of the round's start; 1 is all the way."),
    ] = 1.0

    def schedule(self, *, head: bool) -> Schedule:
        """A and B in every round, turned from the second one on."""
        return Turning(link=together(PAIR, head), share=self.rotation_lambda)
