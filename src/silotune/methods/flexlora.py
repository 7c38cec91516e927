"""FlexLoRA (arXiv 2402.11505)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from silotune.aggregation import Aggregator, Truncate
from silotune.schedules import Constant, Schedule

from .axes import PAIR
from .base import Kind, Method
from .options import About
from .plans import together


@dataclass(frozen=True, kw_only=True)
class FlexLoRA(Method):
    """FlexLoRA (Bai et al. 2024, arXiv 2402.11505): the exact mean, cut back to rank r by an SVD.

    Clients may have ranks of their own: each gets the leading part that fits.

    Attributes:
        balanced: split singular values evenly between B and A; the paper gives all of them to B.
    """

    name: ClassVar[str] = "flexlora"
    title: ClassVar[str] = "FlexLoRA"
    sentence: ClassVar[str] = (
        "The mean of the silos' products is cut back to the adapter's rank by a singular value "
        "decomposition"
    )
    kind: ClassVar[Kind] = Kind.COMBINING
    paper: ClassVar[str] = "2402.11505"
    exact: ClassVar[str] = "no, off by the singular values beyond r; no pair of rank r does better."
    noise: ClassVar[str] = "quadratic, cut along with the tail."
    up: ClassVar[str] = "r (out + in)"
    down: ClassVar[str] = "r (out + in)"
    lends_rule: ClassVar[bool] = True

    balanced: Annotated[
        bool,
        About("Split singular values evenly between B and A; or all into B.", of_rule=True),
    ] = True

    def schedule(self, *, head: bool) -> Schedule:
        """A and B in every round."""
        return Constant(together(PAIR, head))

    def aggregator(self) -> Aggregator:
        """The best pair of the largest rank."""
        return Truncate(rank=self.largest_rank, balanced=self.balanced)
