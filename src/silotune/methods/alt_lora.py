"""AltLoRA (arXiv 2505.12455)."""

from dataclasses import dataclass
from typing import ClassVar

from silotune import optim
from silotune.schedules import Constant, Schedule

from .axes import IncompatibleMethodError
from .base import Kind, Method
from .options import Damping
from .plans import in_turn


@dataclass(frozen=True, kw_only=True)
class AltLoRA(Method):
    """AltLoRA (Yu et al. 2025, arXiv 2505.12455): B in one local step, A in the next, as W would.

    With sgd it is AltLoRA, whose momentum (the paper has 0.9) follows the factors; with adamw,
    AltLoRA+. B comes first, since A has no gradient while B = 0. Under privacy, damping bounds by
    how much the noise in A's gradient is magnified while B is near 0.

    Attributes:
        damping: added to the eigenvalues of B^T B and A A^T.
    """

    name: ClassVar[str] = "alt-lora"
    title: ClassVar[str] = "AltLoRA"
    sentence: ClassVar[str] = (
        "B is trained in one local step, A in the next, each closest to a step of full "
        "fine-tuning; each is averaged by itself"
    )
    kind: ClassVar[Kind] = Kind.OPTIMIZER
    paper: ClassVar[str] = "2505.12455"
    exact: ClassVar[str] = "no, off by the covariance of B and A over clients."
    noise: ClassVar[str] = (
        "linear in every step, divided by the eigenvalues of B^T B and damping in those of A."
    )
    up: ClassVar[str] = "r (out + in)"
    down: ClassVar[str] = "r (out + in)"

    damping: Damping = optim.AltLoRAConfig.damping

    def schedule(self, *, head: bool) -> Schedule:
        """B in one step, A in the next; the head in every one."""
        return Constant(in_turn(head))

    def optimizer(self, given: optim.OptimizerConfig) -> optim.OptimizerConfig:
        """AltLoRA with the numbers of the one that is given, which moves the head.

        Raises:
            IncompatibleMethodError: if that is neither SGD nor AdamW.
        """
        if not isinstance(given, optim.SGD | optim.AdamW):
            raise IncompatibleMethodError(
                "AltLoRA is made of sgd or adamw: set optimizer to one of them"
            )
        usual = optim.AltLoRAConfig.eps
        if isinstance(given, optim.SGD):
            momentum, square, eps = given.momentum, None, usual
        else:
            (momentum, square), eps = given.betas, given.eps_or(usual)
        return optim.AltLoRAConfig(
            lr=given.lr,
            scale=self.pair().scale,
            momentum=momentum,
            square=square,
            weight_decay=given.weight_decay,
            damping=self.damping,
            eps=eps,
        )
