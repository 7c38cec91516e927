"""DoRA (arXiv 2402.09353), averaged."""

from dataclasses import dataclass
from typing import ClassVar

from silotune import adapters
from silotune.core import Role
from silotune.schedules import Constant, Schedule

from .axes import PAIR
from .base import Kind, Method
from .plans import together


@dataclass(frozen=True, kw_only=True)
class DoRA(Method):
    """DoRA (Liu et al. 2024, arXiv 2402.09353): a pair turns the rows of a weight.

    W' = m (W + s B A) / |W + s B A|, row by row, with m = |W| + M, and M = 0 at the start. The norm
    passes no gradient, as in the paper and in PEFT (`use_dora`), which loads what is saved. A, B
    and M are averaged, each by itself; the aggregation error that is reported is that of B A.
    """

    name: ClassVar[str] = "dora"
    title: ClassVar[str] = "DoRA"
    sentence: ClassVar[str] = (
        "The rows of a weight are turned by a pair, and their lengths are trained beside it; all "
        "three are averaged, each by itself"
    )
    kind: ClassVar[Kind] = Kind.LAYER
    paper: ClassVar[str] = "2402.09353"
    exact: ClassVar[str] = (
        "no, off by the covariance of B and A over clients, and of lengths and directions."
    )
    noise: ClassVar[str] = "quadratic, as without lengths; linear in the lengths."
    up: ClassVar[str] = "r (out + in) + out"
    down: ClassVar[str] = "r (out + in) + out"

    def schedule(self, *, head: bool) -> Schedule:
        """A, B and M in every round."""
        return Constant(together(PAIR | {Role.M}, head))

    def adapter(self) -> adapters.Adapter:
        """A pair and lengths."""
        return adapters.DoRA(pair=self.pair())
