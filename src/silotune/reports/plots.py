"""The pictures of a run, each as SVG text: what happened by round, and how silos differ."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from silotune.core.units import human_bytes, metric_text, number_text
from silotune.runs.folder import RoundRecord

from .plot_style import GRID, INK, OTHER, SERIES, SURFACE, canvas, legend, plain, svg

if TYPE_CHECKING:  # it imports datasets, which takes a second
    from silotune.data.summary import SiloSummary

FEW = 12
"""Points up to which a line marks each of them."""

MOST_BARS = 40
"""Silos that a picture of bars can hold."""

Entries = list[tuple[str, Line2D | Patch]]


def metric_by_round(rounds: Sequence[RoundRecord], metric: str) -> str:
    """``metric_figure`` as SVG text."""
    return svg(metric_figure(rounds, metric), f"{metric} by round")


def metric_figure(rounds: Sequence[RoundRecord], metric: str) -> Figure:
    """The global metric after every round, hollow before training; thin lines are single silos."""
    with _round_canvas(rounds, plain(metric)) as (figure, axes):
        axes.yaxis.set_major_formatter(_metric_ticks(metric))
        values = [record.metrics.get(metric) for record in rounds]
        each = {
            name: [record.silos.get(name, {}).get(metric) for record in rounds]
            for name in _names(record.silos for record in rounds)
        }
        singles = _silo_lines(axes, rounds, each)
        _line(axes, rounds, values, SERIES[0])
        if rounds and rounds[0].round < 0 and values[0] is not None:
            _hollow(axes, [0], [values[0]])
        pooled = [_entry("all silos", SERIES[0])] if any(v is not None for v in values) else []
        legend(figure, pooled + singles)
        return figure


def epsilon_by_round(rounds: Sequence[RoundRecord], target: float | None) -> str:
    """``epsilon_figure`` as SVG text."""
    return svg(epsilon_figure(rounds, target), "epsilon spent by round")


def epsilon_figure(rounds: Sequence[RoundRecord], target: float | None) -> Figure:
    """Epsilon spent by every silo so far, under the dashed line of the budget."""
    with _round_canvas(rounds, "ε spent so far") as (figure, axes):
        each = {
            name: [r.epsilon.get(name, 0.0 if r.round < 0 else None) for r in rounds]
            for name in _names(record.epsilon for record in rounds)
        }
        entries = _silo_lines(axes, rounds, each, nest=1.0)
        if target is not None:
            axes.axhline(target, color=INK, linewidth=1, linestyle=(0, (4, 3)))
            label, place = f"budget ε = {number_text(target)}", axes.get_yaxis_transform()
            axes.annotate(label, (0.01, target), (0, 4), place, textcoords="offset points")
        highest = max([target or 0.0, *_finite(each.values())])
        axes.set_ylim(0, 1.15 * highest or 1.0)
        legend(figure, entries)
        return figure


def bytes_by_round(rounds: Sequence[RoundRecord]) -> str:
    """``bytes_figure`` as SVG text."""
    return svg(bytes_figure(rounds), "bytes sent by round")


def bytes_figure(rounds: Sequence[RoundRecord]) -> Figure:
    """Bytes sent since the start, to the server and back."""
    with _round_canvas(rounds, "sent since the start") as (figure, axes):
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: human_bytes(value)))
        up = list(accumulate(record.bytes_up for record in rounds))
        down = list(accumulate(record.bytes_down for record in rounds))
        _line(axes, rounds, up, SERIES[0])
        _line(axes, rounds, down, SERIES[1])
        axes.set_ylim(0, 1.08 * max([*up, *down, 1]))
        legend(figure, [_entry("to the server", SERIES[0]), _entry("to the silos", SERIES[1])])
        return figure


def aggregation_error_by_round(rounds: Sequence[RoundRecord]) -> str:
    """The relative aggregation error, log scale; exact zeros are hollow, on a line of their own."""
    trained = [record for record in rounds if record.round >= 0]
    positive = [error for error in (r.aggregation_error for r in trained) if 0 < error < math.inf]
    zero = 10.0 ** (math.floor(math.log10(min([1e-7, *positive]))) - 1)
    highest = max([1.0, *positive])
    with _round_canvas(trained, "relative error, log scale") as (figure, axes):
        axes.set(yscale="log", ylim=(zero / 3, 3 * highest))
        ticks = LogLocator(numticks=6).tick_values(10 * zero, highest)
        shown = [tick for tick in ticks if 10 * zero <= tick <= 3 * highest]
        axes.set_yticks([zero, *shown], ["0", *map(_power_of_ten, shown)])
        axes.yaxis.set_minor_locator(NullLocator())
        axes.axhline(zero, color=GRID, linewidth=1.2)
        errors = [r.aggregation_error if r.aggregation_error > 0 else math.nan for r in trained]
        _line(axes, trained, errors, SERIES[0])
        exact = [_completed(r) for r in trained if r.aggregation_error == 0]
        _hollow(axes, exact, [zero] * len(exact))
        return svg(figure, "aggregation error by round")


def data_split(split: Mapping[str, SiloSummary]) -> str:
    """How the records divide over silos and labels: one stacked bar for each of the largest silos.

    Labels beyond the colours at hand are pooled, rarest first.
    """
    largest = sorted(split, key=lambda name: -split[name].records)[:MOST_BARS]
    silos = {name: silo for name, silo in split.items() if name in largest}
    stacks = _stacks(list(silos.values()))
    colors = (*SERIES, OTHER)[: len(stacks)]
    with canvas(6.6, 1.0 + 0.34 * len(silos)) as (figure, axes):
        left = [0] * len(silos)
        for counts, color in zip(stacks.values(), colors, strict=True):
            rows = range(len(silos))
            axes.barh(rows, counts, 0.62, left, color=color, edgecolor=SURFACE, linewidth=1)
            left = [total + count for total, count in zip(left, counts, strict=True)]
        _bar_texts(axes, range(len(silos)), left, [f"{total:,}" for total in left])
        _category_axis(axes, list(silos))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set(xlabel=_of("records", silos, split), xlim=(0, 1.1 * max([*left, 1])))
        legend(figure, [(name, Patch(color=c)) for name, c in zip(stacks, colors, strict=True)])
        return svg(figure, "records by silo and label")


def silo_results(results: Mapping[str, Mapping[str, float]], metric: str) -> str:
    """A metric by silo: one bar for each condition.

    Args:
        results: condition (before, alone, federated) -> silo -> value; at most seven conditions.
        metric: its name.
    """
    every = _names(results.values())
    silos = every[:MOST_BARS]
    colors = [OTHER, SERIES[0]] if len(results) < 3 else [OTHER, SERIES[1], SERIES[0], *SERIES[2:]]
    with canvas(4.7, 0.9 + (0.18 * len(results) + 0.12) * len(silos)) as (figure, axes):
        height = 0.8 / max(len(results), 1)
        for i, (values, color) in enumerate(zip(results.values(), colors, strict=False)):
            rows = [row + (i - (len(results) - 1) / 2) * height for row in range(len(silos))]
            widths = [values.get(silo, math.nan) for silo in silos]
            axes.barh(rows, widths, 0.84 * height, color=color)
            _bar_texts(axes, rows, widths, [metric_text(metric, width) for width in widths])
        _category_axis(axes, silos)
        axes.xaxis.set_major_formatter(_metric_ticks(metric))
        highest = max(_finite(values.values() for values in results.values()), default=0.0)
        upper = 1.12 if metric == "accuracy" else 1.15 * highest or 1.0
        axes.set(xlabel=_of(plain(metric), silos, every), xlim=(0, upper))
        patches = [Patch(color=color) for color in colors]
        legend(figure, list(zip(results, patches, strict=False)))
        return svg(figure, f"{metric} by silo")


@contextmanager
def _round_canvas(rounds: Sequence[RoundRecord], label: str) -> Iterator[tuple[Figure, Axes]]:
    """A canvas whose horizontal axis counts completed rounds."""
    with canvas(4.7, 2.75) as (figure, axes):
        last = max([1, *map(_completed, rounds)])
        axes.set(xlabel="rounds completed", ylabel=label, xlim=(-0.02 * last, 1.02 * last))
        axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True))
        axes.grid(visible=False, axis="x")
        yield figure, axes


def _silo_lines(
    axes: Axes,
    rounds: Sequence[RoundRecord],
    each: Mapping[str, Sequence[float | None]],
    nest: float = 0.0,
) -> Entries:
    """A thin line for each silo, or their range where they are too many to tell apart.

    Every line is ``nest`` points wider than the next one, so that equal lines are seen.
    """
    colors = SERIES[1:]
    if len(each) <= len(colors):
        for i, (color, values) in enumerate(zip(colors, each.values(), strict=False)):
            _line(axes, rounds, values, color, width=1.3 + nest * (len(each) - 1 - i))
        return [_entry(name, color) for color, name in zip(colors, each, strict=False)]
    columns = [_finite([column]) for column in zip(*each.values(), strict=True)]
    spans = [(_completed(r), min(c), max(c)) for r, c in zip(rounds, columns, strict=True) if c]
    done, low, high = zip(*spans, strict=True) if spans else ([], [], [])
    axes.fill_between(done, low, high, color=OTHER, lw=0, alpha=0.45)
    return [(f"range of {len(each)} silos", Patch(color=OTHER, alpha=0.45))]


def _line(
    axes: Axes,
    rounds: Sequence[RoundRecord],
    values: Sequence[float | None],
    color: str,
    width: float = 2.2,
) -> None:
    """A line through the rounds that have a value (None: not measured). NaN makes a gap."""
    points = [(_completed(r), v) for r, v in zip(rounds, values, strict=True) if v is not None]
    marker = "o" if len(points) <= FEW or any(math.isnan(y) for _, y in points) else ""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    axes.plot(xs, ys, marker=marker, color=color, lw=width, ms=width + 1.5)


def _hollow(axes: Axes, xs: Sequence[float], ys: Sequence[float]) -> None:
    axes.plot(xs, ys, "o", mec=SERIES[0], mfc=SURFACE, mew=1.5, ms=5.5, clip_on=False)


def _entry(name: str, color: str) -> tuple[str, Line2D | Patch]:
    return name, Line2D([], [], color=color, lw=2.2)


def _completed(record: RoundRecord) -> int:
    return record.round + 1


def _metric_ticks(metric: str) -> FuncFormatter:
    percent = metric == "accuracy"
    return FuncFormatter(lambda v, _: f"{100 * v:.3g} %" if percent else f"{v:.4g}")


def _power_of_ten(value: float) -> str:
    exponent = str(round(math.log10(value)))
    return "10" + exponent.translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _category_axis(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [plain(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.grid(visible=False, axis="y")


def _bar_texts(
    axes: Axes, rows: Sequence[float], widths: Sequence[float], texts: Sequence[str]
) -> None:
    for row, width, text in zip(rows, widths, texts, strict=True):
        end = width if math.isfinite(width) else 0.0
        axes.annotate(text, (end, row), (4, 0), va="center", textcoords="offset points", size=8)


def _of(label: str, shown: Iterable[str], every: Iterable[str]) -> str:
    some, all_ = len(list(shown)), len(list(every))
    return label if some == all_ else f"{label} ({some} of {all_} silos)"


def _names(mappings: Iterable[Mapping[str, object]]) -> list[str]:
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))


def _finite(groups: Iterable[Iterable[float | None]]) -> list[float]:
    return [v for group in groups for v in group if v is not None and math.isfinite(v)]


def _stacks(silos: Sequence[SiloSummary]) -> dict[str, list[int]]:
    """Label -> records in every silo; what has no label of its own here comes last."""
    totals = sum((Counter(silo.labels) for silo in silos), Counter[str]())
    fits = len(totals) <= len(SERIES) + 1  # grey is a colour too
    kept = {label for label, _ in totals.most_common(None if fits else len(SERIES))}
    stacks = {
        label: [silo.labels.get(label, 0) for silo in silos]
        for label in _names(silo.labels for silo in silos)
        if label in kept
    }
    known = [sum(counts) for counts in zip(*stacks.values(), strict=True)] or [0] * len(silos)
    rest = [silo.records - count for silo, count in zip(silos, known, strict=True)]
    if any(rest):
        stacks[f"{len(totals) - len(kept)} other labels" if kept else "records"] = rest
    return stacks
