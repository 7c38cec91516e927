"""FlexLoRA (arXiv 2402.11505)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from silotune.aggregation import Aggregator, Truncate
from silotune.schedules import Constant, Schedule

from .axes import PAIR
from .base import Kind, Method
from .options import About
from .plans import together


@dataclass(frozen=True, kw_only=True)
class FlexLoRA(Method):
    """FlexLoRA (Bai et al. 2024, arXiv 2402.11505): the exact mean, cut back to rank r by an SVD.

    Clients may have ranks of their own: each gets the leading part that fits, and trains it at the
    scale of its own rank, alpha / r_i.

    Attributes:
        rank_scale: of silos whose rank differs: that of their own rank, or the shared adapter's.
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

    rank_scale: Annotated[
        Literal["own", "shared"],
        About(
            "Scale at which a silo of a rank of its own (`ranks`) trains: lora_alpha / its rank, "
            "as in the paper's code; or that of the largest rank for all.",
            of_rule=True,
        ),
    ] = "own"

    def schedule(self, *, head: bool) -> Schedule:
        """A and B in every round."""
        return Constant(together(PAIR, head))

    def aggregator(self) -> Aggregator:
        """The best pair of the largest rank."""
        return Truncate(
            rank=self.largest_rank,
            balanced=self.balanced,
            scales_by_rank=self.rank_scale == "own",
        )
