"""The linear probe, which every method has to beat."""

from dataclasses import dataclass
from typing import ClassVar

from silotune.schedules import Constant, Schedule

from .axes import IncompatibleMethodError
from .base import Kind, Method
from .plans import together


@dataclass(frozen=True, kw_only=True)
class HeadOnly(Method):
    """The linear probe: train and average the head alone. The baseline to beat."""

    name: ClassVar[str] = "head-only"
    title: ClassVar[str] = "the head only"
    sentence: ClassVar[str] = (
        "The encoder is used as it is; a linear classifier on it is trained and averaged"
    )
    kind: ClassVar[Kind] = Kind.SHARING
    exact: ClassVar[str] = "yes."
    noise: ClassVar[str] = "linear."
    up: ClassVar[str] = "0"
    down: ClassVar[str] = "0"
    rate_scale: ClassVar[float] = 4.0

    def schedule(self, *, head: bool) -> Schedule:
        """The head in every round.

        Raises:
            IncompatibleMethodError: if the head is frozen, since nothing is left to train.
        """
        if not head:
            raise IncompatibleMethodError("method head-only trains the head: set head to trained")
        return Constant(together((), head))

    def adapter(self) -> None:
        """None."""
        return
