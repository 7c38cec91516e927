"""The learning rate of a step: a pure function of the step, the same on every machine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, assert_never

Kind = Literal["constant", "constant_with_warmup", "linear", "cosine"]
Span = Literal["run", "link"]

DIGITS = 9
"""Of a cosine, whose last ones are not the same on every machine; an order must be."""


@dataclass(frozen=True, kw_only=True)
class LearningRateSchedule:
    """How the learning rate goes over the steps of a run, or of a link of a chain.

    Names and curves are those of transformers' Trainer, but for one step: warming up over W steps
    begins at 1/W of the rate and not at 0, where a step would be paid for and move nothing.

    Attributes:
        kind: constant; or, after warming up, constant, falling linearly to 0, or as half a cosine.
        warmup_steps: W.
        warmup_ratio: W as a share of all steps, rounded up; of this and W one is 0.
        span: whether it goes over the run, or anew over every link, from one fold to the next.

    Raises:
        ValueError: naming the field, if a number is out of range or two do not go together.
    """

    kind: Kind = "constant"
    warmup_steps: int = 0
    warmup_ratio: float = 0.0
    span: Span = "run"

    def __post_init__(self) -> None:
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps: must not be negative, not {self.warmup_steps}")
        if not 0 <= self.warmup_ratio < 1:
            raise ValueError(
                f"warmup_ratio: must be at least 0 and below 1, not {self.warmup_ratio}"
            )
        if self.warmup_steps and self.warmup_ratio:
            raise ValueError(
                "warmup_ratio: warmup_steps says how long to warm up already; leave one of them out"
            )
        name = "warmup_steps" if self.warmup_steps else "warmup_ratio"
        if (self.warmup_steps or self.warmup_ratio) and self.kind == "constant":
            raise ValueError(
                f"{name}: the learning rate of lr_schedule: constant does not warm up; take "
                "constant_with_warmup"
            )

    def warmup(self, steps: int) -> int:
        """Steps of so many in which the rate rises."""
        return self.warmup_steps or math.ceil(self.warmup_ratio * steps)

    def factor(self, step: int, steps: int) -> float:
        """The rate of a step by the largest.

        Args:
            step: counts from 0; after the last one the rate is what it came to.
            steps: of the run or the link.
        """
        warmup = self.warmup(steps)
        if step < warmup:
            return (step + 1) / warmup
        passed = min(1.0, (step - warmup) / max(1, steps - warmup))
        match self.kind:
            case "constant" | "constant_with_warmup":
                return 1.0
            case "linear":
                return 1.0 - passed
            case "cosine":
                return round(0.5 * (1.0 + math.cos(math.pi * passed)), DIGITS)
            case _:
                assert_never(self.kind)
