"""Class by class, or label by label: what a report shows of answers, whatever the number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from silotune.core.classes import ClassScore, class_scores
from silotune.objectives.task import Target, Task
from silotune.runs.scored import Scored

MOST_CLASSES = 20
"""Classes up to which each has its row at once, and a row and column of the confusion matrix."""

MOST_MISTAKES = 12
"""Pairs of classes that the list of mistakes has."""


class Words(NamedTuple):
    """What is told one by one.

    Attributes:
        one: of them.
        many: of them.
        n: what is counted of each.
    """

    one: str
    many: str
    n: str


WORDS: Mapping[Target, Words] = {
    "label": Words("class", "classes", "records that are of the class"),
    "labels": Words("label", "labels", "records that have the label"),
    "entities": Words(
        "type", "types", "entities of the type, which are found where they are whole"
    ),
}
"""By what a task learns."""


@dataclass(frozen=True)
class Mistake:
    """Records of one class that were taken for another.

    Attributes:
        right: their class.
        given: what they were taken for.
        records: how many.
        share: of all records of their class.
    """

    right: str
    given: str
    records: int
    share: float


@dataclass(frozen=True)
class MatrixRow:
    """The records of one class.

    Attributes:
        label: the class.
        cells: records by given class, and the share of the row in percent.
    """

    label: str
    cells: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Classes:
    """What there is to see.

    Attributes:
        scores: label and score of every class that occurs, in the order of ids.
        worst: of these the ones to show first: all, or those with the lowest F1.
        matrix: a row for every class that occurs; empty where they are too many.
        mistakes: the most frequent ones.
        words: what these are.
    """

    scores: tuple[tuple[str, ClassScore], ...]
    worst: tuple[tuple[str, ClassScore], ...]
    matrix: tuple[MatrixRow, ...]
    mistakes: tuple[Mistake, ...]
    words: Words


def classes_of(scored: Scored | None, labels: Sequence[str], task: Task) -> Classes | None:
    """What the answers of a run were; None for a task without classes or labels.

    Args:
        scored: of the finished model.
        labels: in the order of ids; of tokens the tags.
        task: of the run.
    """
    if scored is None or not (scored.classes or scored.counts):
        return None
    labels = task.counted(labels)
    scores = class_scores(scored.classes) or _that_occur(scored)
    named = tuple((labels[score.label], score) for score in scores)
    few = len(named) <= MOST_CLASSES
    worst = named if few else tuple(sorted(named, key=_by_f1)[:MOST_CLASSES])
    return Classes(
        scores=named,
        worst=worst,
        matrix=_matrix(scored, scores, labels) if few and scored.classes else (),
        mistakes=_mistakes(scored, scores, labels),
        words=WORDS[task.target],
    )


def _that_occur(scored: Scored) -> list[ClassScore]:
    """Labels that some record has or was given."""
    found = (ClassScore(*row) for row in scored.counts)
    return [score for score in found if score.records + score.given]


def _by_f1(row: tuple[str, ClassScore]) -> tuple[float, int]:
    return row[1].f1, -row[1].records


def _matrix(
    scored: Scored, scores: Sequence[ClassScore], labels: Sequence[str]
) -> tuple[MatrixRow, ...]:
    counts = {(right, given): count for right, given, count in scored.classes}

    def row(score: ClassScore) -> MatrixRow:
        cells = [counts.get((score.label, other.label), 0) for other in scores]
        shares = [round(100 * cell / max(score.records, 1)) for cell in cells]
        return MatrixRow(labels[score.label], tuple(zip(cells, shares, strict=True)))

    return tuple(map(row, scores))


def _mistakes(
    scored: Scored, scores: Sequence[ClassScore], labels: Sequence[str]
) -> tuple[Mistake, ...]:
    sizes = {score.label: score.records for score in scores}
    wrong = [(count, right, given) for right, given, count in scored.classes if right != given]
    most = sorted(wrong, key=lambda pair: (-pair[0], pair[1:]))[:MOST_MISTAKES]
    return tuple(Mistake(labels[r], labels[g], count, count / sizes[r]) for count, r, g in most)
