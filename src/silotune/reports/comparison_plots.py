"""The pictures of a comparison, each as SVG text: a metric against what it costs, block by block.

The same label has the same colour in every picture. Where there is an interval it is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from silotune.core.units import human_bytes, number_text

from .comparison import Comparison, Group, block_of, estimate, words_of
from .plot_style import SERIES, canvas, legend, metric_ticks, plain, svg

DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))
"""Of lines beyond the colours at hand."""

MOST_ROWS = 24
"""Groups of which one picture shows the silos."""

APART = 1.5
"""Epsilons are other ones where they are so many times each other: calibration leaves a rest."""

Style = tuple[str, object]


def by_epsilon(comparison: Comparison) -> dict[str, str]:
    """The metric against epsilon, log scale: block -> picture; nothing where one epsilon is all."""
    apart = [axis for axis in _apart(comparison) if not _moves_epsilon(comparison, axis)]
    return {
        name: _against(
            comparison,
            spent,
            lambda group: group.largest_epsilon,
            "ε spent, log scale",
            number_text,
            f"{comparison.metric} by epsilon {name}",
        )
        for name, groups in _blocks(comparison, apart).items()
        if _differ(spent := [group for group in groups if _drawn(group.largest_epsilon)])
    }


def by_bytes(comparison: Comparison) -> dict[str, str]:
    """The metric against all that was sent, log scale: block -> picture."""

    def sent(group: Group) -> float:
        return group.mean("bytes_up") + group.mean("bytes_down")

    return {
        name: _against(
            comparison,
            shown,
            sent,
            "sent by all and to all, log scale",
            human_bytes,
            f"{comparison.metric} by bytes {name}",
        )
        for name, groups in _blocks(comparison, _apart(comparison)).items()
        if (shown := [group for group in groups if _drawn(sent(group))])
    }


def by_round(comparison: Comparison) -> dict[str, str]:
    """The metric while training goes on, mean over seeds: block -> picture."""
    found: dict[str, str] = {}
    for name, groups in _blocks(comparison, _apart(comparison)).items():
        curves = {label: _curve(group) for label, group in _named(comparison, groups)}
        drawn = {label: curve for label, curve in curves.items() if len(curve) > 1}
        if not drawn:
            continue
        with _panel(comparison, list(drawn)) as (figure, axes):
            for label, curve in drawn.items():
                color, dashes = _style(comparison, label)
                rounds, values = zip(*curve, strict=True)
                axes.plot(rounds, values, color=color, linestyle=dashes, lw=2, ms=3.5, marker="o")
            axes.set(xlabel="rounds completed")
            axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True))
            found[name] = svg(figure, f"{comparison.metric} by round {name}")
    return found


def by_silo(comparison: Comparison) -> str:
    """From the worst silo to the best, and their mean, of every group; empty if no silo is scored.

    Silos are means over seeds, on their own held-out records.
    """
    rows = [
        (" · ".join(group.labels.values()), values)
        for group in comparison.groups
        if (values := _silos(group))
    ][:MOST_ROWS]
    if not rows:
        return ""
    with canvas(6.6, 0.9 + 0.26 * len(rows)) as (figure, axes):
        for i, (_, values) in enumerate(rows):
            axes.plot([min(values), max(values)], [i, i], color=SERIES[0], lw=1.4)
            axes.plot(values, [i] * len(values), "|", color=SERIES[0], ms=8)
            axes.plot([math.fsum(values) / len(values)], [i], "o", color=SERIES[1], ms=5)
        axes.set_yticks(range(len(rows)), [plain(name) for name, _ in rows])
        axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel=plain(comparison.metric))
        axes.xaxis.set_major_formatter(metric_ticks(comparison.metric))
        axes.grid(visible=False, axis="y")
        silo = Line2D([], [], color=SERIES[0], marker="|", lw=1.4, ms=8)
        mean = Line2D([], [], color=SERIES[1], marker="o", lw=0)
        legend(figure, [("a silo", silo), ("their mean", mean)])
        return svg(figure, f"{comparison.metric} by silo and group")


def _against(
    comparison: Comparison,
    groups: Sequence[Group],
    where: Callable[[Group], float],
    label: str,
    tick: Callable[[float], str],
    title: str,
) -> str:
    """Means with intervals over a log axis; groups of one label are joined."""
    by_label: dict[str, list[Group]] = {}
    for name, group in _named(comparison, groups):
        by_label.setdefault(name, []).append(group)
    with _panel(comparison, list(by_label)) as (figure, axes):
        for name, found in by_label.items():
            color, dashes = _style(comparison, name)
            own = sorted(found, key=where)
            axes.errorbar(
                [where(group) for group in own],
                [group.score.mean for group in own],
                yerr=[0.0 if math.isnan(g.score.half) else g.score.half for g in own],
                color=color,
                linestyle=dashes,
                marker="o",
                lw=1.6,
                ms=5,
                capsize=2.5,
                elinewidth=1.1,
            )
        axes.set(xscale="log", xlabel=label)
        _log_ticks(axes, sorted({where(group) for group in groups}), tick)
        return svg(figure, title)


def _log_ticks(axes: Axes, places: Sequence[float], tick: Callable[[float], str]) -> None:
    """At the places themselves where they are few, else at 1, 2 and 5 of each power of ten."""
    low, high = places[0] / 1.25, places[-1] * 1.25
    apart = all(b / a > 1.2 for a, b in pairwise(places))
    if len(places) <= 6 and apart:
        shown = list(places)
    else:
        ticks = LogLocator(subs=(1, 2, 5), numticks=8).tick_values(low, high)
        shown = [value for value in ticks if low <= value <= high] or [places[0]]
    axes.set_xlim(low, high)
    axes.set_xticks(shown)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))


@contextmanager
def _panel(comparison: Comparison, names: Sequence[str]) -> Iterator[tuple[Figure, Axes]]:
    """A picture of the metric, with a legend of the labels in it."""
    with canvas(4.7, 3.0) as (figure, axes):
        axes.set(ylabel=plain(comparison.metric))
        axes.yaxis.set_major_formatter(metric_ticks(comparison.metric))
        axes.grid(visible=False, axis="x")
        entries: list[tuple[str, Line2D | Patch]] = []
        for name in (name for name in _names(comparison) if name in names):
            color, dashes = _style(comparison, name)
            entries.append((name, Line2D([], [], color=color, linestyle=dashes, lw=2)))
        legend(figure, entries)
        yield figure, axes


def _blocks(comparison: Comparison, apart: Sequence[str]) -> dict[str, list[Group]]:
    """Labels of the axes ``apart``, for people -> the groups with a score that have them."""
    found: dict[str, list[Group]] = {}
    for group in comparison.groups:
        if math.isfinite(group.score.mean):
            name = words_of({axis: group.labels[axis] for axis in apart})
            found.setdefault(name, []).append(group)
    return found


def _apart(comparison: Comparison) -> list[str]:
    return [axis for axis in comparison.axes if axis not in comparison.compared]


def _moves_epsilon(comparison: Comparison, axis: str) -> bool:
    """Whether groups that are alike but for this axis have spent other epsilons."""
    alike: dict[tuple[str, ...], list[Group]] = {}
    for group in comparison.groups:
        if _drawn(group.largest_epsilon):
            alike.setdefault(block_of(group.labels, [axis]), []).append(group)
    return any(map(_differ, alike.values()))


def _differ(groups: Sequence[Group]) -> bool:
    spent = [group.largest_epsilon for group in groups]
    return bool(spent) and max(spent) > APART * min(spent)


def _named(comparison: Comparison, groups: Sequence[Group]) -> list[tuple[str, Group]]:
    """With what is compared as a name."""
    return [(_name(comparison, group), group) for group in groups]


def _name(comparison: Comparison, group: Group) -> str:
    return " · ".join(group.labels[axis] for axis in comparison.compared)


def _names(comparison: Comparison) -> list[str]:
    """What is compared, in order."""
    return list(dict.fromkeys(_name(comparison, group) for group in comparison.groups))


def _style(comparison: Comparison, name: str) -> Style:
    i = _names(comparison).index(name)
    return SERIES[i % len(SERIES)], DASHES[i // len(SERIES) % len(DASHES)]


def _curve(group: Group) -> list[tuple[int, float]]:
    """The mean over seeds after every round that all have scored."""
    runs = [{point.round: point.value for point in run.rounds} for run in group.runs]
    shared = sorted(set.intersection(*map(set, runs))) if runs else []
    means = [(done, estimate(run[done] for run in runs).mean) for done in shared]
    return [(done, mean) for done, mean in means if math.isfinite(mean)]


def _silos(group: Group) -> list[float]:
    """Every silo's mean over seeds."""
    names = dict.fromkeys(name for run in group.runs for name in run.silos)
    means = [estimate(r.silos[n] for r in group.runs if n in r.silos).mean for n in names]
    return [mean for mean in means if math.isfinite(mean)]


def _drawn(place: float) -> bool:
    """Whether a log axis has a place for it."""
    return 0 < place < math.inf
