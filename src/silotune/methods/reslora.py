"""ResLoRA (arXiv 2402.18039)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from silotune import adapters
from silotune.schedules import Constant, Schedule

from .axes import PAIR
from .base import Kind, Method
from .options import About
from .plans import together


@dataclass(frozen=True, kw_only=True)
class ResLoRA(Method):
    """ResLoRA (Shi et al. 2024, arXiv 2402.18039): FedIT with shortcuts between layers' pairs.

    ``block`` lets a layer use the pairs of the layers before it as well, and merges exactly;
    ``input`` and ``middle`` let its pair see what they read, and cannot: their adapters are saved
    in a format of our own. Only layers of equal shape are linked. The aggregation error is told of
    every layer's own B A; with ``middle``, B also meets the A of other layers, which is not in it.

    ``silotune export RUN --format merged --approximate weights`` merges an estimate of ``input``
    and ``middle``: a multiple of what a layer reads stands for what an earlier one read, by the
    norms of weights. ``--approximate inputs`` takes the mean norms of inputs over at most 100
    batches of training records, a statistic of them, so that it needs ``privacy.unit: none`` and
    the records on the machine. The export's README says by how much of what training changed the
    outputs differ: on made-up records, or for ``inputs`` on training records.

    Attributes:
        shortcut: what a layer takes from those before it: what they read, their pairs, their A x.
        pre_num: how many layers back; ``input`` reaches one.
    """

    name: ClassVar[str] = "reslora"
    title: ClassVar[str] = "ResLoRA"
    sentence: ClassVar[str] = (
        "Both factors are trained and each is averaged by itself; shortcuts link the pairs of "
        "consecutive layers"
    )
    kind: ClassVar[Kind] = Kind.LAYER
    paper: ClassVar[str] = "2402.18039"
    exact: ClassVar[str] = "no, off by the covariance of B and A over clients."
    noise: ClassVar[str] = "quadratic; the product of means divides its energy by K^2."
    up: ClassVar[str] = "r (out + in)"
    down: ClassVar[str] = "r (out + in)"

    shortcut: Annotated[
        Literal["input", "block", "middle"],
        About(
            "What a layer takes from those before it: what they read; their pairs; or their A x."
        ),
    ] = "block"
    pre_num: Annotated[int, Ge(1), About("How many layers back shortcuts reach; 1 for input.")] = 1

    def schedule(self, *, head: bool) -> Schedule:
        """A and B in every round."""
        return Constant(together(PAIR, head))

    def adapter(self) -> adapters.Adapter:
        """Linked pairs."""
        return adapters.ResLoRA(
            pair=self.pair(), shortcut=adapters.Shortcut(self.shortcut), pre_num=self.pre_num
        )
