"""FFA-LoRA (arXiv 2403.12313)."""

from dataclasses import dataclass
from typing import ClassVar

from silotune.core import Role
from silotune.schedules import Constant, Schedule

from .base import Kind, Method
from .plans import together


@dataclass(frozen=True, kw_only=True)
class FFALoRA(Method):
    """FFA-LoRA (Sun et al. 2024, arXiv 2403.12313): freeze A, train and average B.

    Half of LoRA's numbers travel; A is drawn from a seed.
    """

    name: ClassVar[str] = "ffa-lora"
    title: ClassVar[str] = "FFA-LoRA"
    sentence: ClassVar[str] = (
        "A is public and stays frozen; B is trained and averaged, so that averaging is exact and "
        "the noise of privacy enters linearly"
    )
    kind: ClassVar[Kind] = Kind.SHARING
    paper: ClassVar[str] = "2403.12313"
    exact: ClassVar[str] = "yes, since A is common."
    noise: ClassVar[str] = "linear."
    up: ClassVar[str] = "r out"
    down: ClassVar[str] = "r out"
    rate_scale: ClassVar[float] = 4.0

    def schedule(self, *, head: bool) -> Schedule:
        """B in every round."""
        return Constant(together({Role.B}, head))
