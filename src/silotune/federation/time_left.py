"""How long a run will still take: rounds, their scores, and the baselines after them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from silotune.core.units import human_seconds
from silotune.runs.folder import RoundRecord


@dataclass
class TimeLeft:
    """Times what happens between records, and counts what is still to come.

    A round is known from rounds, and a score from scores: before both were seen there is no
    estimate, rather than one of half of the work.

    Attributes:
        rounds: in all.
        scored: whether the state after so many rounds is scored.
        baseline: whether every silo trains alone in the end, by turns: as long as all rounds.
        now: the clock, in seconds.
    """

    rounds: int
    scored: Callable[[int], bool]
    baseline: bool = False
    now: Callable[[], float] = monotonic
    _last: float = math.nan
    _trained: list[float] = field(default_factory=list)
    _scores: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._last = self.now()

    def after(self, record: RoundRecord) -> float:
        """Seconds from this record to the end of all rounds and baselines; NaN if not yet known."""
        took = self.now() - self._last
        self._last += took
        done = record.round + 1
        if record.round < 0:
            self._scores.append(took)
            return math.nan
        if not math.isfinite(record.seconds):
            return math.nan  # time is a secret here
        training = min(record.seconds, took)
        self._trained.append(training)
        if self.scored(done):
            self._scores.append(took - training)
        left = self.rounds - done
        to_score = sum(map(self.scored, range(done + 1, self.rounds + 1)))
        if to_score and not self._scores:
            return math.nan
        turns = left + (self.rounds if self.baseline else 0)
        last = 1 + self.baseline  # the result itself, and silos' own models
        return turns * _mean(self._trained) + (to_score + last) * _mean(self._scores)

    def text(self, record: RoundRecord) -> str:
        """``3 min 05 s left``, in whole seconds; empty if not yet known."""
        left = self.after(record)
        return f"{human_seconds(math.ceil(left))} left" if math.isfinite(left) else ""


def _mean(seconds: list[float]) -> float:
    return math.fsum(seconds) / len(seconds) if seconds else 0.0
