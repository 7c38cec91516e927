"""Class by class: precision, recall, F1 and their mean, from counts of right and given classes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Pairs = Sequence[Sequence[int]]
"""Right class, given class, number of records: of every pair that occurs."""


def pairs_of(right: Iterable[int], given: Iterable[int]) -> list[tuple[int, int, int]]:
    """Counted, in the order of ids."""
    times = Counter(zip(right, given, strict=True))
    return [(*pair, times[pair]) for pair in sorted(times)]


@dataclass(frozen=True)
class ClassScore:
    """How well one class is told from others.

    Attributes:
        label: its id.
        records: that are of it.
        given: that were taken for it.
        hits: both.
    """

    label: int
    records: int
    given: int
    hits: int

    @property
    def precision(self) -> float:
        """Of those taken for it, the share that is; NaN if there are none."""
        return self.hits / self.given if self.given else math.nan

    @property
    def recall(self) -> float:
        """Of those that are, the share taken for it; NaN if there are none."""
        return self.hits / self.records if self.records else math.nan

    @property
    def f1(self) -> float:
        """Harmonic mean of both."""
        return 2 * self.hits / (self.records + self.given)


def class_scores(pairs: Pairs) -> list[ClassScore]:
    """Of every class that occurs, right or given, in the order of ids."""
    records, given, hits = Counter[int](), Counter[int](), Counter[int]()
    for right, taken, count in pairs:
        records[right] += count
        given[taken] += count
        hits[right] += count if right == taken else 0
    return [ClassScore(c, records[c], given[c], hits[c]) for c in sorted({*records, *given})]


def macro_f1(pairs: Pairs) -> float:
    """The mean of F1 over all classes that occur; NaN without any."""
    scores = class_scores(pairs)
    return math.fsum(score.f1 for score in scores) / len(scores) if scores else math.nan


def macro_f1_error(pairs: Pairs) -> float:
    """Its standard error over records by the delta method; NaN without any.

    F1 of a class is 2 h / (r + g); a record of class a that is taken for b moves the mean by its
    derivative, and these are independent (Takahashi et al., Applied Intelligence 52, 2022).
    """
    scores = {score.label: score for score in class_scores(pairs)}
    if not scores:
        return math.nan

    def moves(right: int, given: int) -> float:
        both = [scores[right], scores[given]]
        down = math.fsum(c.f1 / (c.records + c.given) for c in both)
        up = 2 / (both[0].records + both[0].given) if right == given else 0.0
        return (up - down) / len(scores)

    return math.sqrt(math.fsum(count * moves(a, b) ** 2 for a, b, count in pairs))
