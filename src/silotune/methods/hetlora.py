"""HetLoRA (arXiv 2401.06432)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from silotune.aggregation import Aggregator, Padded
from silotune.schedules import Constant, Schedule

from .axes import PAIR
from .base import Kind, Method
from .options import About
from .plans import together


@dataclass(frozen=True, kw_only=True)
class HetLoRA(Method):
    """HetLoRA (Cho et al. 2024, arXiv 2401.06432): factors of unequal ranks, padded and averaged.

    A silo of a rank of its own (``ranks``) trains the first columns of B and rows of A; the server
    fills up what it sends with zeros. All train at the scale of the largest rank. By default silos
    weigh by the norms of their products, which the server computes from what they have sent, so
    that it costs nothing where that is private already; a silo that sends large products has a
    large say, and whoever lies about them decides the mean. The paper's self-pruning, by which
    ranks shrink as silos train, is not built.

    Attributes:
        norm_weights: weigh silos by the norm of their products; or as ``train.weighting`` says.
    """

    name: ClassVar[str] = "hetlora"
    title: ClassVar[str] = "HetLoRA"
    sentence: ClassVar[str] = (
        "Pairs of any rank are filled up with zeros and averaged, each silo weighing as the norm "
        "of its products"
    )
    kind: ClassVar[Kind] = Kind.COMBINING
    paper: ClassVar[str] = "2401.06432"
    exact: ClassVar[str] = "no, off by the covariance of the padded B and A."
    noise: ClassVar[str] = "quadratic, as FedIT's; noise makes norms, and so weights, more alike."
    up: ClassVar[str] = "r (out + in)"
    down: ClassVar[str] = "r (out + in)"

    norm_weights: Annotated[
        bool,
        About(
            "Silos weigh by the Frobenius norm of their products, all layers together, in place of "
            "`train.weighting`; false where clients are hidden."
        ),
    ] = True

    def schedule(self, *, head: bool) -> Schedule:
        """A and B in every round."""
        return Constant(together(PAIR, head))

    def aggregator(self) -> Aggregator:
        """The padded means."""
        return Padded(weighs_by_norm=self.norm_weights)
