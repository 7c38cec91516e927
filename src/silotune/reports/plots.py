"""The pictures of a run by round, each as SVG text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from silotune.core.units import human_bytes, number_text
from silotune.runs.folder import RoundRecord

from .plot_style import (
    GRID,
    INK,
    OTHER,
    SERIES,
    SURFACE,
    canvas,
    finite,
    legend,
    metric_ticks,
    names_of,
    plain,
    svg,
)

FEW = 12
"""Points up to which a line marks each of them."""

Entries = list[tuple[str, Line2D | Patch]]


def metric_by_round(rounds: Sequence[RoundRecord], metric: str) -> str:
    """``metric_figure`` as SVG text."""
    return svg(metric_figure(rounds, metric), f"{metric} by round")


def metric_figure(rounds: Sequence[RoundRecord], metric: str) -> Figure:
    """The global metric after every round, hollow before training; thin lines are single silos."""
    with _round_canvas(rounds, plain(metric)) as (figure, axes):
        axes.yaxis.set_major_formatter(metric_ticks(metric))
        values = [record.metrics.get(metric) for record in rounds]
        each = {
            name: [record.silos.get(name, {}).get(metric) for record in rounds]
            for name in names_of(record.silos for record in rounds)
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
            for name in names_of(record.epsilon for record in rounds)
        }
        entries = _silo_lines(axes, rounds, each, nest=1.0)
        if target is not None:
            axes.axhline(target, color=INK, linewidth=1, linestyle=(0, (4, 3)))
            label, place = f"budget ε = {number_text(target)}", axes.get_yaxis_transform()
            axes.annotate(label, (0.01, target), (0, 4), place, textcoords="offset points")
        highest = max([target or 0.0, *finite(each.values())])
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


def noise_by_round(rounds: Sequence[RoundRecord]) -> str:
    """Noise over signal of every round, log scale; where no signal is seen, hollow on the top line.

    The dashed line is where there is as much of one as of the other.
    """
    told = [(r, r.noise_to_signal) for r in rounds if r.noise_to_signal is not None]
    trained, ratios = [record for record, _ in told], [ratio for _, ratio in told]
    seen = [ratio for ratio in ratios if 0 < ratio < math.inf]
    low = math.floor(math.log10(min([0.5, *seen])))
    high = math.ceil(math.log10(max([2.0, *seen])))
    top = 10.0 ** (high + 0.5)
    with _round_canvas(trained, "noise / signal, log scale") as (figure, axes):
        axes.set(yscale="log", ylim=(10.0**low, 1.6 * top))
        ticks = [10.0**power for power in range(low, high + 1)]
        axes.set_yticks([*ticks, top], [*map(number_text, ticks), "no signal"])
        axes.yaxis.set_minor_locator(NullLocator())
        axes.axhline(top, color=GRID, linewidth=1.2)
        axes.axhline(1.0, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        _line(axes, trained, [r if r < math.inf else math.nan for r in ratios], SERIES[0])
        drowned = [_completed(record) for record, ratio in told if ratio == math.inf]
        _hollow(axes, drowned, [top] * len(drowned))
        return svg(figure, "noise to signal by round")


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
    columns = [finite([column]) for column in zip(*each.values(), strict=True)]
    spans = [(_completed(r), min(c), max(c)) for r, c in zip(rounds, columns, strict=True) if c]
    done, low, high = zip(*spans, strict=True) if spans else ([], [], [])
    axes.fill_between(done, low, high, color=OTHER, lw=0, alpha=0.45)
    for edge in (low, high):  # where all are equal there is no area
        axes.plot(done, edge, color=OTHER, lw=1.1)
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


def _power_of_ten(value: float) -> str:
    exponent = str(round(math.log10(value)))
    return "10" + exponent.translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
