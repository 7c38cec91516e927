"""LoRA+ (arXiv 2402.12354)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt

from silotune import optim
from silotune.schedules import Constant, Schedule

from .axes import PAIR
from .base import Kind, Method
from .options import About
from .plans import together


@dataclass(frozen=True, kw_only=True)
class LoRAPlus(Method):
    """LoRA+ (Hayou et al. 2024, arXiv 2402.12354): B moves at a higher rate than A.

    FedIT's averages. The learning rate is that of A and of the head.

    Attributes:
        lora_plus_ratio: rate of B by that of A.
    """

    name: ClassVar[str] = "lora-plus"
    title: ClassVar[str] = "LoRA+"
    sentence: ClassVar[str] = (
        "Both factors are trained, B at a higher rate than A, and each is averaged by itself"
    )
    kind: ClassVar[Kind] = Kind.OPTIMIZER
    paper: ClassVar[str] = "2402.12354"
    exact: ClassVar[str] = "no, off by the covariance of B and A over clients."
    noise: ClassVar[str] = "quadratic; the product of means divides its energy by K^2."
    up: ClassVar[str] = "r (out + in)"
    down: ClassVar[str] = "r (out + in)"
    made_of_adamw: ClassVar[bool] = True
    rate_scale: ClassVar[float] = 0.5

    lora_plus_ratio: Annotated[
        float, Gt(0), About("Learning rate of B by that of A, which is learning_rate.")
    ] = optim.LoRAPlusConfig.ratio

    def schedule(self, *, head: bool) -> Schedule:
        """A and B in every round."""
        return Constant(together(PAIR, head))

    def optimizer(self, given: optim.OptimizerConfig) -> optim.OptimizerConfig:
        """AdamW at two rates."""
        adamw = self._adamw(given)
        return optim.LoRAPlusConfig(
            lr=adamw.lr,
            ratio=self.lora_plus_ratio,
            weight_decay=adamw.weight_decay,
            betas=adamw.betas,
            eps=adamw.eps_or(optim.LoRAPlusConfig.eps),
        )
