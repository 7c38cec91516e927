"""LoRA-Pro (arXiv 2407.18242)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from silotune import optim
from silotune.schedules import Constant, Schedule

from .axes import PAIR
from .base import Kind, Method
from .options import About, Damping
from .plans import together


@dataclass(frozen=True, kw_only=True)
class LoRAPro(Method):
    """LoRA-Pro (Wang et al. 2024, arXiv 2407.18242): local steps closest to those of full training.

    FedIT's averages. Under privacy, set damping to about 0.01: while B is near 0 the noise in A's
    gradient is divided by it.

    Attributes:
        damping: added to the eigenvalues of B^T B and A A^T.
        full_moments: the paper's full mode, which remembers 2 out in numbers for every layer.
    """

    name: ClassVar[str] = "lora-pro"
    title: ClassVar[str] = "LoRA-Pro"
    sentence: ClassVar[str] = (
        "Both factors are trained by the steps whose product comes closest to one of full "
        "fine-tuning, and each is averaged by itself"
    )
    kind: ClassVar[Kind] = Kind.OPTIMIZER
    paper: ClassVar[str] = "2407.18242"
    exact: ClassVar[str] = "no, off by the covariance of B and A over clients."
    noise: ClassVar[str] = "quadratic; while B is near 0, A moves by full steps of noise."
    up: ClassVar[str] = "r (out + in)"
    down: ClassVar[str] = "r (out + in)"
    made_of_adamw: ClassVar[bool] = True
    rate_scale: ClassVar[float] = 4.0

    damping: Damping = optim.LoRAProConfig.damping
    full_moments: Annotated[
        bool,
        About(
            "LoRA-Pro's full mode: Adam's two means are whole matrices, 2 out in numbers for every "
            "layer."
        ),
    ] = optim.LoRAProConfig.full_moments

    def schedule(self, *, head: bool) -> Schedule:
        """A and B in every round."""
        return Constant(together(PAIR, head))

    def optimizer(self, given: optim.OptimizerConfig) -> optim.OptimizerConfig:
        """AdamW on gradients that are corrected for the adapter's scale."""
        adamw = self._adamw(given)
        return optim.LoRAProConfig(
            lr=adamw.lr,
            scale=self.pair().scale,
            weight_decay=adamw.weight_decay,
            betas=adamw.betas,
            eps=adamw.eps_or(optim.LoRAProConfig.eps),
            damping=self.damping,
            full_moments=self.full_moments,
        )
