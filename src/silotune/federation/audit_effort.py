"""Effort: how deep an audit goes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What an audit spends.

    Attributes:
        trials: of the two-world audit, in each world.
        silos: whose messages are read, at most; two at least, if need be of one mechanism.
        rounds: of a transcript, at least and at most: as many as the smallest tensor needs.
        pool: whether worker processes are audited where the configuration does not ask for them.
        whole: whether canaries also go through the whole model, however large it is.
    """

    trials: int
    silos: int
    rounds: tuple[int, int]
    pool: bool
    whole: bool


SHORT = Effort(trials=2500, silos=2, rounds=(6, 40), pool=False, whole=False)
"""Under two minutes."""

THOROUGH = Effort(trials=20_000, silos=8, rounds=(20, 120), pool=True, whole=True)
"""Under twenty minutes."""

ENOUGH_NUMBERS = 90
"""Of a tensor, over all rounds: half the noise would be missed."""


def rounds_for(smallest: int, effort: Effort) -> int:
    """Of a transcript.

    Args:
        smallest: numbers of the smallest tensor.
        effort: bounds them.
    """
    least, most = effort.rounds
    return min(most, max(least, -(-ENOUGH_NUMBERS // smallest)))
