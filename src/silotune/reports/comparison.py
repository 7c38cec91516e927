"""Comparison: what repeated runs say of each other: means, paired differences, and which is best.

Pure: values in, values out. An interval is Student's t over seeds, of 95 %; two groups are compared
by the differences at the seeds that both have run, so that what a seed draws for both cancels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from silotune.objectives.registry import goal_of

LEVEL = 0.95

METHOD = (
    "Means over seeds, with 95 % intervals by Student's t. Differences are paired: seed by seed, "
    "and then the mean. The best of a block is marked only where it is better than every other one "
    "by paired intervals that hold together at 95 % (Bonferroni). Intervals are over the seeds "
    "that ran; they do not say how other data or other silos would end."
)

NAN = math.nan

NOT_YET = "has not run yet"
"""Why a run has no value that will have one."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One scored round of a run.

    Attributes:
        round: rounds done.
        value: of the metric.
    """

    round: int
    value: float


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One run of a comparison. What is unknown is NaN.

    Attributes:
        labels: axis -> label.
        beside: the baseline that it is, such as ``pooled``; empty where it competes.
        seed: of the run.
        trial: whether it only chose what is tuned; its value is then of the valid records.
        failed: why there is no value; empty where there is one.
        metric: its name.
        value: of the finished model, on the records of ``part``.
        part: ``test``, or what else was scored.
        untrained: the value of the model before training, on the same records.
        alone: silo -> value of what it trains by itself, on the same records.
        silos: silo -> value after the last scored round, on its own held-out records.
        epsilon: largest of all silos, spent; infinite without noise.
        bytes_up: to the server, in all.
        bytes_down: from it.
        seconds: of all rounds.
        peak_memory: most bytes of memory that its process held.
        tuned: key -> value that was chosen by trials, or is tried.
        rounds: by which a curve is drawn.
        folder: where it is.
    """

    labels: Mapping[str, str]
    seed: int
    metric: str
    beside: str = ""
    trial: bool = False
    failed: str = ""
    value: float = NAN
    part: str = ""
    untrained: float = NAN
    alone: Mapping[str, float] = field(default_factory=dict)
    silos: Mapping[str, float] = field(default_factory=dict)
    epsilon: float = NAN
    bytes_up: float = NAN
    bytes_down: float = NAN
    seconds: float = NAN
    peak_memory: float = NAN
    tuned: Mapping[str, object] = field(default_factory=dict)
    rounds: Sequence[Point] = ()
    folder: str = ""


@dataclass(frozen=True)
class Estimate:
    """A mean and where it lies.

    Attributes:
        mean: NaN of nothing.
        half: half the width of its interval; NaN of fewer than two.
        n: how many values.
    """

    mean: float
    half: float
    n: int

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """Upper end of it."""
        return self.mean + self.half


@dataclass(frozen=True, kw_only=True)
class Group:
    """The runs of one cell, over seeds.

    Attributes:
        labels: axis -> label.
        beside: the baseline that they are; empty where they compete.
        runs: those with a value, by seed.
        failed: why others have none, each reason once.
        score: the mean over seeds.
        difference: from the baseline of the comparison, paired; None of the baseline itself, and
            where there is none.
        best: whether it is better than every other that competes in its block.
    """

    labels: Mapping[str, str]
    beside: str
    runs: Sequence[Measurement]
    failed: Sequence[str]
    score: Estimate
    difference: Estimate | None = None
    best: bool = False

    def mean(self, name: str) -> float:
        """The mean of a field over the runs; NaN of none."""
        return estimate(getattr(run, name) for run in self.runs).mean

    @property
    def largest_epsilon(self) -> float:
        """Over seeds."""
        return max((run.epsilon for run in self.runs), default=NAN)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Groups, and what they are compared by.

    Attributes:
        title: of the page.
        axes: their names, in order.
        compared: the axes whose labels compete; the others make blocks.
        baseline: axis -> label of the group from which differences are taken; empty for none.
        metric: what is compared.
        groups: in order, those of a block behind one another.
        notes: what the reader must know.
    """

    title: str
    axes: Sequence[str]
    compared: Sequence[str]
    baseline: Mapping[str, str]
    metric: str
    groups: Sequence[Group]
    notes: Sequence[str] = ()

    @property
    def blocks(self) -> Mapping[tuple[str, ...], Sequence[Group]]:
        """Labels of the axes that are not compared -> the groups that have them."""
        found: dict[tuple[str, ...], list[Group]] = {}
        for group in self.groups:
            found.setdefault(block_of(group.labels, self.compared), []).append(group)
        return found

    @property
    def missing(self) -> Mapping[str, Sequence[str]]:
        """Why there is no result -> the groups that lack one for it, by their labels."""
        found: dict[str, list[str]] = {}
        for group in self.groups:
            for why in group.failed:
                found.setdefault(why, []).append(words_of(group.labels))
        return found


def compare(
    runs: Sequence[Measurement],
    *,
    title: str,
    axes: Sequence[str],
    compared: Sequence[str],
    baseline: Mapping[str, str],
    notes: Sequence[str] = (),
) -> Comparison:
    """Sum up runs, which need not all have ended.

    Args:
        runs: those of trials are left out, and those that another metric scores have no result.
        title: of the page.
        axes: their names, in order.
        compared: the axes whose labels compete.
        baseline: label of each compared axis from whose group differences are taken; or nothing.
        notes: for the reader.
    """
    results = [run for run in runs if not run.trial]
    metric = next((run.metric for run in results if run.metric), "accuracy")
    grouped: dict[tuple[str, ...], list[Measurement]] = {}
    for run in (_of_metric(run, metric) for run in results):
        grouped.setdefault((*block_of(run.labels, compared), *run.labels.values()), []).append(run)
    groups = [_group(of_cell) for of_cell in grouped.values()]
    told = Comparison(
        title=title,
        axes=axes,
        compared=compared,
        baseline=baseline,
        metric=metric,
        groups=groups,
        notes=notes,
    )
    judged = [
        replace(group, difference=_difference(group, block, baseline), best=is_best(group, block))
        for block in told.blocks.values()
        for group in block
    ]
    return replace(told, groups=judged)


def estimate(values: Iterable[float], level: float = LEVEL) -> Estimate:
    """Mean and Student's t interval of independent values; those that are NaN are left out.

    Args:
        values: one a seed.
        level: chance that the interval holds the mean.
    """
    known = [value for value in values if not math.isnan(value)]
    n = len(known)
    if not n:
        return Estimate(NAN, NAN, 0)
    mean = math.fsum(known) / n
    if n == 1 or not math.isfinite(mean):
        return Estimate(mean, NAN, n)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in known) / (n - 1))
    return Estimate(mean, quantile(n - 1, level) * spread / math.sqrt(n), n)


def paired(ours: Sequence[Measurement], others: Sequence[Measurement], level: float) -> Estimate:
    """The mean difference of two groups at the seeds that both have.

    Args:
        ours: from which is taken.
        others: what is taken.
        level: as of ``estimate``.
    """
    theirs = {run.seed: run.value for run in others}
    return estimate((run.value - theirs[run.seed] for run in ours if run.seed in theirs), level)


def quantile(freedom: int, level: float) -> float:
    """Of Student's t: how many standard errors on either side hold ``level``."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + level) / 2))


def is_best(group: Group, block: Sequence[Group]) -> bool:
    """Whether a group is better than every other that competes, by intervals that hold together.

    One alone is best of nothing, and nobody is while one that competes has still to run.
    """
    competing = [other for other in block if not other.beside]
    rivals = [other for other in competing if other is not group and other.runs]
    if group.beside or not group.runs or not rivals:
        return False
    if any(NOT_YET in other.failed for other in competing):
        return False
    level = 1 - (1 - LEVEL) / len(rivals)
    sign = 1 if larger_is_better(group.runs[0].metric) else -1
    gaps = [paired(group.runs, other.runs, level) for other in rivals]
    return all(sign * gap.mean - gap.half > 0 for gap in gaps)  # false of an unknown one


def larger_is_better(metric: str) -> bool:
    """As the task of the metric says."""
    return goal_of(metric) == "max"


def block_of(labels: Mapping[str, str], compared: Sequence[str]) -> tuple[str, ...]:
    """The labels of the axes that are not compared."""
    return tuple(label for axis, label in labels.items() if axis not in compared)


def words_of(labels: Mapping[str, str]) -> str:
    """Axes with their labels, for people: ``privacy.target_epsilon 6 · split iid``."""
    return " · ".join(f"{axis} {label}" for axis, label in labels.items())


def _of_metric(run: Measurement, metric: str) -> Measurement:
    """A run in a comparison by a metric: without a result if another one scores it."""
    if run.failed or run.metric == metric:
        return run
    return replace(run, failed=f"it is scored by {run.metric}, and this table by {metric}")


def _group(runs: Sequence[Measurement]) -> Group:
    done = sorted((run for run in runs if not run.failed), key=lambda run: run.seed)
    return Group(
        labels=runs[0].labels,
        beside=runs[0].beside,
        runs=done,
        failed=list(dict.fromkeys(run.failed for run in runs if run.failed)),
        score=estimate(run.value for run in done),
    )


def _difference(
    group: Group, block: Sequence[Group], baseline: Mapping[str, str]
) -> Estimate | None:
    """From the baseline that stands in the same block."""
    if not baseline:
        return None
    is_baseline = [
        not other.beside and all(other.labels[axis] == label for axis, label in baseline.items())
        for other in block
    ]
    found = [other for other, is_it in zip(block, is_baseline, strict=True) if is_it]
    if not found or found[0] is group:
        return None
    return paired(group.runs, found[0].runs, LEVEL)
