"""FedSVD (arXiv 2505.12805)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge

from silotune.aggregation import Aggregator, Refactor
from silotune.core import Role
from silotune.schedules import Constant, Schedule

from .base import Kind, Method
from .options import About
from .plans import together


@dataclass(frozen=True, kw_only=True)
class FedSVD(Method):
    """FedSVD (Lee et al. 2025, arXiv 2505.12805): train B; the server turns B A into its SVD.

    A then has orthonormal rows that follow what was learned. Rows three times as long as those of
    Kaiming-uniform A (in squared length) mean a learning rate three times as high: tune it again.

    Attributes:
        refactor_every: rounds between two SVDs; r out numbers go down in the others.
        randomised: a randomised SVD.
    """

    name: ClassVar[str] = "fedsvd"
    title: ClassVar[str] = "FedSVD"
    sentence: ClassVar[str] = (
        "B is trained and averaged; the server writes the product B A anew, with orthonormal rows "
        "in A"
    )
    kind: ClassVar[Kind] = Kind.COMBINING
    paper: ClassVar[str] = "2505.12805"
    exact: ClassVar[str] = "yes, since only B moves."
    noise: ClassVar[str] = "linear, and no larger in B A than in B."
    up: ClassVar[str] = "r out"
    down: ClassVar[str] = "r (out + in)"
    rate_scale: ClassVar[float] = 4.0
    lends_rule: ClassVar[bool] = True

    refactor_every: Annotated[
        int, Ge(1), About("Rounds between two SVDs of B A.", of_rule=True)
    ] = 1
    randomised: Annotated[bool, About("Compute them by a randomised SVD.", of_rule=True)] = False

    def schedule(self, *, head: bool) -> Schedule:
        """B in every round."""
        return Constant(together({Role.B}, head))

    def aggregator(self) -> Aggregator:
        """The mean of B, and the SVD where it is time."""
        return Refactor(every=self.refactor_every, randomised=self.randomised)
