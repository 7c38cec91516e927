"""LoRA-FA (arXiv 2308.03303)."""

from dataclasses import dataclass
from typing import ClassVar

from silotune import optim
from silotune.core import Role
from silotune.schedules import Constant, Schedule

from .base import Kind, Method
from .options import Damping
from .plans import together


@dataclass(frozen=True, kw_only=True)
class LoRAFA(Method):
    """LoRA-FA (Zhang et al. 2023, arXiv 2308.03303): FFA-LoRA whose B moves as full training would.

    Gradients of B are multiplied by (A A^T)^-1 before AdamW takes its step, as in PEFT. With
    orthonormal A that changes nothing, and this is FFA-LoRA with AdamW.

    Attributes:
        damping: added to the eigenvalues of A A^T.
    """

    name: ClassVar[str] = "lora-fa"
    title: ClassVar[str] = "LoRA-FA"
    sentence: ClassVar[str] = (
        "A is public and stays frozen; B is trained by the steps that come closest to those of "
        "full fine-tuning, and averaged"
    )
    kind: ClassVar[Kind] = Kind.OPTIMIZER
    paper: ClassVar[str] = "2308.03303"
    exact: ClassVar[str] = "yes, since A is common."
    noise: ClassVar[str] = "linear."
    up: ClassVar[str] = "r out"
    down: ClassVar[str] = "r out"
    made_of_adamw: ClassVar[bool] = True
    rate_scale: ClassVar[float] = 4.0

    damping: Damping = optim.LoRAFAConfig.damping

    def schedule(self, *, head: bool) -> Schedule:
        """B in every round."""
        return Constant(together({Role.B}, head))

    def optimizer(self, given: optim.OptimizerConfig) -> optim.OptimizerConfig:
        """AdamW on gradients that are corrected for the adapter's scale."""
        adamw = self._adamw(given)
        return optim.LoRAFAConfig(
            lr=adamw.lr,
            scale=self.pair().scale,
            weight_decay=adamw.weight_decay,
            betas=adamw.betas,
            eps=adamw.eps_or(optim.LoRAFAConfig.eps),
            damping=self.damping,
        )
