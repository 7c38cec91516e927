"""How much a client trains in a round: so many steps, or so many times its records."""

from __future__ import annotations

import math
from fractions import Fraction

from .units import count_text, number_text

USUAL_STEPS = 10
"""Where nothing is said of it."""


def steps_in(
    size: int, *, batch_size: int, local_steps: int | None, local_epochs: float | None
) -> int:
    """Local steps of a client in one round; ``ceil(local_epochs * size / batch_size)`` of epochs.

    Where records are drawn by coins, each is expected to be read ``local_epochs`` times. Epochs are
    a number as it is written: 0.1 of 30 records are 3.

    Args:
        size: the client's records, at least 1.
        batch_size: records that a step expects.
        local_steps: as they are given; None = ``USUAL_STEPS``, if there are no epochs either.
        local_epochs: above 0 and finite; None = as ``local_steps`` say.
    """
    if local_epochs is None:
        return local_steps or USUAL_STEPS
    return math.ceil(Fraction(repr(float(local_epochs))) * size / batch_size)


def work_text(most_steps: int, epochs: float | None) -> str:
    """``10 steps``; or ``2 epochs (at most 30 steps)``, where clients' steps differ."""
    if epochs is None:
        return count_text(most_steps, "step")
    noun = "epoch" if epochs == 1 else "epochs"
    return f"{number_text(epochs)} {noun} (at most {count_text(most_steps, 'step')})"
