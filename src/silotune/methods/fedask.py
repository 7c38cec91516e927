"""FedASK (arXiv 2507.09990)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge

from silotune.aggregation import Aggregator, Sketch
from silotune.core import Role
from silotune.schedules import Constant, Schedule

from .axes import PAIR
from .base import Kind, Method
from .options import About
from .plans import together


@dataclass(frozen=True, kw_only=True)
class FedASK(Method):
    """FedASK (Wen et al. 2025, arXiv 2507.09990): both factors anew, from sketches of the products.

    Two sketches of the mean product give the server its leading singular vectors; singular values
    are split evenly between B and A. As in the setting that the paper has for privacy, silos train
    B alone, and A moves at the server. The paper sends the sketches in two exchanges, so that
    secure sums suffice; here B is sent, of which both are made, and less travels.

    Attributes:
        freeze_a: whether silos leave A as it is; if not, the sketch cuts what is beyond r.
        oversampling: columns of the sketch beyond r.
    """

    name: ClassVar[str] = "fedask"
    title: ClassVar[str] = "FedASK"
    sentence: ClassVar[str] = (
        "B is trained; the server writes both factors anew from two random sketches of the mean of "
        "the silos' products"
    )
    kind: ClassVar[Kind] = Kind.COMBINING
    paper: ClassVar[str] = "2507.09990"
    exact: ClassVar[str] = (
        "yes, since only B moves; with freeze_a false, off by about the singular values beyond r."
    )
    noise: ClassVar[str] = "linear; with freeze_a false quadratic, cut along with the tail."
    up: ClassVar[str] = "r out"
    down: ClassVar[str] = "r (out + in)"
    rate_scale: ClassVar[float] = 4.0

    freeze_a: Annotated[
        bool,
        About("Silos train B alone (the paper's setting under privacy); or A and B."),
    ] = True
    oversampling: Annotated[
        int,
        Ge(0),
        About("Columns of the random sketch beyond r; with freeze_a nothing is lost without any."),
    ] = 0

    def schedule(self, *, head: bool) -> Schedule:
        """B, or A and B, in every round."""
        return Constant(together({Role.B} if self.freeze_a else PAIR, head))

    def aggregator(self) -> Aggregator:
        """The sketches."""
        return Sketch(rank=self.largest_rank, oversampling=self.oversampling, b_alone=self.freeze_a)
