"""RAC-LoRA (arXiv 2410.08305)."""

from dataclasses import dataclass
from typing import ClassVar

from silotune.core import Role
from silotune.schedules import Chain, Schedule

from .base import Kind, Method
from .options import FoldEvery
from .plans import together


@dataclass(frozen=True, kw_only=True)
class RACLoRA(Method):
    """RAC-LoRA (Malinovsky et al. 2024, arXiv 2410.08305): COLA's chain, A frozen in every link.

    FFA-LoRA for ``fold_every`` rounds, in each link with another A from the seed: all directions
    have their turn. After a fold r (out + in) numbers go down once.

    Attributes:
        fold_every: rounds that a link of the chain lasts.
    """

    name: ClassVar[str] = "rac-lora"
    title: ClassVar[str] = "RAC-LoRA"
    sentence: ClassVar[str] = (
        "B is trained and averaged beside an A that is frozen; every few rounds their product is "
        "added to the frozen base, and another A is drawn from the seed"
    )
    kind: ClassVar[Kind] = Kind.CHAIN
    paper: ClassVar[str] = "2410.08305"
    exact: ClassVar[str] = "yes, since A is common."
    noise: ClassVar[str] = "linear."
    up: ClassVar[str] = "r out"
    down: ClassVar[str] = "r out"
    rate_scale: ClassVar[float] = 4.0

    fold_every: FoldEvery = 5

    def schedule(self, *, head: bool) -> Schedule:
        """B, folded with its A at the end of every link."""
        return Chain(together({Role.B}, head), every=self.fold_every)
