"""FedSA-LoRA (arXiv 2410.01463)."""

from dataclasses import dataclass, replace
from typing import ClassVar

from silotune.core import Role
from silotune.schedules import Constant, Schedule

from .axes import PAIR
from .base import Kind, Method
from .plans import together


@dataclass(frozen=True, kw_only=True)
class FedSALoRA(Method):
    """FedSA-LoRA (Guo et al. 2024, arXiv 2410.01463): train both factors, share A alone.

    B and the classifier stay at home, as in the paper: every client ends with a model of its own,
    and its scores are those of that model. A client that comes late begins with B = 0.
    """

    name: ClassVar[str] = "fedsa-lora"
    title: ClassVar[str] = "FedSA-LoRA"
    sentence: ClassVar[str] = (
        "Both factors are trained and A is averaged; B and the classifier stay with their silo"
    )
    kind: ClassVar[Kind] = Kind.SHARING
    paper: ClassVar[str] = "2410.01463"
    exact: ClassVar[str] = "yes for A, which is all that is combined; there is no common B A."
    noise: ClassVar[str] = "linear in A; B is noised too, and stays at home."
    up: ClassVar[str] = "r in"
    down: ClassVar[str] = "r in"

    def schedule(self, *, head: bool) -> Schedule:
        """All trains, A is shared."""
        return Constant(replace(together(PAIR, head), share=frozenset({Role.A})))
