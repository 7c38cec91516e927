"""Whether a run can learn under its noise, judged in words before it starts.

The noise of steps adds up like a random walk, the signal at most in a straight line: over T steps,
noise sigma C sqrt(P) / b a step, averaged over silos of weights w, has the length
``sigma C sqrt(P T) |w| / b``, and the sum of clipped gradients at most ``C T``. Their ratio R is
public. Where silos take unequal steps T_i, the noise is ``sigma C sqrt(P) |w_i sqrt(T_i)| / b`` and
the signal ``C`` times the mean of T_i. What R means was measured: docs/privacy.md,
``python -m benchmarks.noise_to_signal``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

LITTLE, NOTHING = 0.1, 0.5
"""From where on noise costs accuracy with many labels, and from where on with few, too."""

CURE = (
    "train fewer numbers (fewer layers_to_transform, a smaller r, method head-only), take larger "
    "batches, more silos or rounds, or a larger ε"
)


def over_the_run(a_step: Sequence[float], weights: Sequence[float], steps: Sequence[int]) -> float:
    """Noise over the largest signal of a whole run.

    Args:
        a_step: noise over signal of each silo in one step.
        weights: of one of its steps in the mean; their sum is 1 where silos take equal steps.
        steps: of each silo in all rounds.
    """
    silos = list(zip(weights, a_step, steps, strict=True))
    noise = math.hypot(*(w * one * math.sqrt(taken) for w, one, taken in silos))
    return noise / sum(w * taken for w, _, taken in silos)


def verdict(noise_to_signal: float) -> str:
    """In words what to expect; empty without noise."""
    if not noise_to_signal:
        return ""
    told = f"noise / signal of the whole run is {noise_to_signal:.2g}"
    if noise_to_signal >= NOTHING:
        return (
            f"{told}: it will cost much, and with many labels leave nothing to learn, whatever the "
            f"learning rate; {CURE}"
        )
    if noise_to_signal >= LITTLE:
        return f"{told}: it will cost accuracy, the more the more labels there are; {CURE}"
    return f"{told}: noise leaves room to learn; a task whose records disagree needs it smaller"
