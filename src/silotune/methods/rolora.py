"""RoLoRA (arXiv 2409.02346)."""

from dataclasses import dataclass
from typing import ClassVar

from silotune.core import Role
from silotune.schedules import AlternateRounds, Schedule

from .base import Kind, Method
from .plans import together


@dataclass(frozen=True, kw_only=True)
class RoLoRA(Method):
    """RoLoRA (Chen et al. 2024, arXiv 2409.02346): B in one round, A in the next, in turn."""

    name: ClassVar[str] = "rolora"
    title: ClassVar[str] = "RoLoRA"
    sentence: ClassVar[str] = (
        "B is trained and averaged in one round, A in the next, so that every average is exact"
    )
    kind: ClassVar[Kind] = Kind.SHARING
    paper: ClassVar[str] = "2409.02346"
    exact: ClassVar[str] = "yes, since one factor is common in every round."
    noise: ClassVar[str] = "linear in every round."
    up: ClassVar[str] = "r out, then r in"
    down: ClassVar[str] = "r in, then r out"

    def schedule(self, *, head: bool) -> Schedule:
        """B in even rounds, A in odd ones."""
        return AlternateRounds((together({Role.B}, head), together({Role.A}, head)))
