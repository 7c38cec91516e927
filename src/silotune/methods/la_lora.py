"""LA-LoRA (arXiv 2602.19926)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from silotune import optim
from silotune.schedules import Constant, Schedule

from .base import Kind, Method
from .options import About
from .plans import in_turn


@dataclass(frozen=True, kw_only=True)
class LALoRA(Method):
    """LA-LoRA (arXiv 2602.19926): B in one local step, A in the next; gradients are smoothed.

    A step clips and noises what it trains and nothing else, so the guarantee is that of ordinary
    DP-SGD; the filter acts on gradients that are noised already. (The paper's released code filters
    with an FFT and steps B twice as fast.)

    Attributes:
        low_pass: filter gradients along the features with [1, 4, 6, 4, 1] / 16.
    """

    name: ClassVar[str] = "la-lora"
    title: ClassVar[str] = "LA-LoRA"
    sentence: ClassVar[str] = (
        "B is trained in one local step, A in the next, on gradients smoothed along the features; "
        "each is averaged by itself"
    )
    kind: ClassVar[Kind] = Kind.SHARING
    paper: ClassVar[str] = "2602.19926"
    exact: ClassVar[str] = "no, off by the covariance of B and A over clients."
    noise: ClassVar[str] = "linear in every step; the filter keeps 27 % of its variance."
    up: ClassVar[str] = "r (out + in)"
    down: ClassVar[str] = "r (out + in)"

    low_pass: Annotated[bool, About("Smooth gradients of A and B along their features.")] = True

    def schedule(self, *, head: bool) -> Schedule:
        """B in one step, A in the next; the head in every one."""
        return Constant(in_turn(head))

    def optimizer(self, given: optim.OptimizerConfig) -> optim.OptimizerConfig:
        """The one that is given, behind the filter."""
        return optim.LowPassConfig(given) if self.low_pass else given
