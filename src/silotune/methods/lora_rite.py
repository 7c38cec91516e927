"""LoRA-RITE (arXiv 2410.20625)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Lt

from silotune import optim
from silotune.schedules import Constant, Schedule

from .axes import PAIR
from .base import Kind, Method
from .options import About
from .plans import together


@dataclass(frozen=True, kw_only=True)
class LoRARITE(Method):
    """LoRA-RITE (Yen et al. 2024, arXiv 2410.20625): local steps that no factorisation changes.

    FedIT's averages. As B is near 0 when the first round begins, the second local step moves A by
    much, however low the learning rate, and at each client in its own way: in the first rounds the
    aggregation error is several times FedIT's. Steps are in units of the gradient's own spectrum,
    so directions that it lacks are filled with rounding: where gradients have a lower rank than r
    (a handful of records a step, a head that reads one token), take a smaller r, or set
    cutoff to 1e-3.

    Attributes:
        escape: shorten steps by the second moment that is lost when the basis turns.
        clip_unmagnified_grad: largest norm of all pairs' gradients together; the authors' code has
            1, the paper none.
        cutoff: part of a factor's largest singular value below which a direction counts as none.
    """

    name: ClassVar[str] = "lora-rite"
    title: ClassVar[str] = "LoRA-RITE"
    sentence: ClassVar[str] = (
        "Both factors are trained by steps that do not depend on how their product is factored, "
        "and each is averaged by itself"
    )
    kind: ClassVar[Kind] = Kind.OPTIMIZER
    paper: ClassVar[str] = "2410.20625"
    exact: ClassVar[str] = "no, off by the covariance of B and A over clients."
    noise: ClassVar[str] = "quadratic; while B is near 0, A moves by full steps of noise."
    up: ClassVar[str] = "r (out + in)"
    down: ClassVar[str] = "r (out + in)"
    made_of_adamw: ClassVar[bool] = True

    escape: Annotated[
        bool,
        About("Shorten LoRA-RITE's steps by the second moment that is lost when the basis turns."),
    ] = optim.LoRARITEConfig.escape
    clip_unmagnified_grad: Annotated[
        float,
        Ge(0),
        About(
            "Largest norm of the gradients of all pairs together, in LoRA-RITE's bases; 0 = none."
        ),
    ] = optim.LoRARITEConfig.clip_unmagnified_grad
    cutoff: Annotated[
        Annotated[float, Gt(0), Lt(1)] | None,
        About(
            "Directions of A and B shorter than this part of the longest do not move: 1e-3 "
            "protects where gradients have a lower rank than r, at the price of invariance; null = "
            "rounding alone, as in the authors' code."
        ),
    ] = optim.LoRARITEConfig.cutoff

    def schedule(self, *, head: bool) -> Schedule:
        """A and B in every round."""
        return Constant(together(PAIR, head))

    def optimizer(self, given: optim.OptimizerConfig) -> optim.OptimizerConfig:
        """LoRA-RITE at AdamW's learning rate and weight decay; AdamW moves the head."""
        adamw = self._adamw(given)
        return optim.LoRARITEConfig(
            lr=adamw.lr,
            weight_decay=adamw.weight_decay,
            betas=adamw.betas,
            eps=adamw.eps_or(optim.LoRARITEConfig.eps),
            escape=self.escape,
            clip_unmagnified_grad=self.clip_unmagnified_grad,
            cutoff=self.cutoff,
        )
