"""COLA (arXiv 2401.04151)."""

from dataclasses import dataclass
from typing import ClassVar

from silotune.schedules import Chain, Schedule

from .axes import PAIR
from .base import Kind, Method
from .options import FoldEvery
from .plans import together


@dataclass(frozen=True, kw_only=True)
class COLA(Method):
    """COLA (Xia et al. 2024, arXiv 2401.04151): a chain of pairs, each folded, then a fresh one.

    FedIT for ``fold_every`` rounds; then W + s B A is the new base, and a new A and B = 0 begin. So
    the whole change may have a rank of r times the number of links. (A new link has a new
    optimiser, as in the paper; the learning rate is the schedule's over all rounds, or over every
    link: ``lr_schedule_span: link``. The paper has a linear schedule; that it warms up in every
    link, as ReLoRA does, was not found in it.)

    Attributes:
        fold_every: rounds that a link of the chain lasts.
    """

    name: ClassVar[str] = "cola"
    title: ClassVar[str] = "COLA"
    sentence: ClassVar[str] = (
        "Both factors are averaged, each by itself; every few rounds their product is added to the "
        "frozen base, and a fresh pair begins"
    )
    kind: ClassVar[Kind] = Kind.CHAIN
    paper: ClassVar[str] = "2401.04151"
    exact: ClassVar[str] = "no, off by the covariance of B and A over clients."
    noise: ClassVar[str] = "quadratic; the product of means divides its energy by K^2."
    up: ClassVar[str] = "r (out + in)"
    down: ClassVar[str] = "r (out + in)"

    fold_every: FoldEvery = 5

    def schedule(self, *, head: bool) -> Schedule:
        """A and B, folded at the end of every link."""
        return Chain(together(PAIR, head), every=self.fold_every)
