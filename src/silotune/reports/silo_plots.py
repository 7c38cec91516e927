"""The pictures of silos beside each other, each as SVG text.

A few silos are bars with names. More of them stand in order, without names, in a picture whose
size does not depend on their number: the tables beside it name them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from silotune.core.units import count_text, metric_text

from .plot_style import (
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

if TYPE_CHECKING:  # it imports datasets, which takes a second
    from silotune.data.summary import SiloSummary

MOST_NAMED = 16
"""Silos that a picture names."""

MOST_RESULTS = 18
"""Bars of results beside a picture by round, which is as high."""

MOST_BARS = 400
"""Silos that it shows."""

BANDS = (1, 5, 20, 100)
"""Where there are more labels than colours, each silo's own are banded by their rank in it."""


def data_split(split: Mapping[str, SiloSummary]) -> str:
    """How the records divide over silos and labels: one stacked bar for each silo.

    Labels beyond the colours at hand are banded by their rank in their silo, so that it shows
    on how few labels a silo's records lie, whichever these are.
    """
    silos = dict(sorted(split.items(), key=lambda item: -item[1].records)[:MOST_BARS])
    if len(split) <= MOST_NAMED:
        silos = dict(split)
    stacks = _stacks(list(silos.values()))
    colors = (*SERIES, OTHER)[: len(stacks)] if len(stacks) > 1 else SERIES[:1]
    entries = [(name, Patch(color=c)) for name, c in zip(stacks, colors, strict=True)]
    title = "records by silo and label"
    bars = [(counts, color) for counts, color in zip(stacks.values(), colors, strict=True)]
    totals = [silo.records for silo in silos.values()]
    if len(split) > MOST_NAMED:
        with canvas(6.6, 2.9) as (figure, axes):
            _columns(axes, bars)
            _rank_axis(axes, "silos, largest first", len(silos), len(split))
            axes.yaxis.set_major_formatter(_thousands())
            axes.set(ylabel="records", ylim=(0, 1.05 * max([*totals, 1])))
            legend(figure, entries)
            return svg(figure, title)
    with canvas(6.6, 1.0 + 0.34 * len(silos)) as (figure, axes):
        _stack(axes, bars)
        _bar_texts(axes, range(len(silos)), totals, list(map(_size_text, silos.values())))
        _category_axis(axes, list(silos))
        axes.xaxis.set_major_formatter(_thousands())
        axes.set(xlabel="records", xlim=(0, 1.25 * max([*totals, 1])))
        legend(figure, entries)
        return svg(figure, title)


def silo_results(results: Mapping[str, Mapping[str, float]], metric: str) -> str:
    """A metric by silo: one bar for each condition, or one row of points if there are many.

    Args:
        results: condition (before, alone, federated) -> silo -> value; at most seven conditions.
        metric: its name.
    """
    silos = names_of(results.values())
    colors = [OTHER, SERIES[0]] if len(results) < 3 else [OTHER, SERIES[1], SERIES[0], *SERIES[2:]]
    if len(silos) * len(results) > MOST_RESULTS:
        return _ranked_results(results, metric, silos, colors)
    with canvas(4.7, 0.9 + (0.18 * len(results) + 0.12) * len(silos)) as (figure, axes):
        height = 0.8 / max(len(results), 1)
        for i, (values, color) in enumerate(zip(results.values(), colors, strict=False)):
            rows = [row + (i - (len(results) - 1) / 2) * height for row in range(len(silos))]
            widths = [values.get(silo, math.nan) for silo in silos]
            axes.barh(rows, widths, 0.84 * height, color=color)
            _bar_texts(axes, rows, widths, [metric_text(metric, width) for width in widths])
        _category_axis(axes, silos)
        axes.xaxis.set_major_formatter(metric_ticks(metric))
        axes.set(xlabel=plain(metric), xlim=(0, _upper(results, metric)))
        patches = [Patch(color=color) for color in colors]
        legend(figure, list(zip(results, patches, strict=False)))
        return svg(figure, f"{metric} by silo")


def _ranked_results(
    results: Mapping[str, Mapping[str, float]],
    metric: str,
    silos: Sequence[str],
    colors: Sequence[str],
) -> str:
    """One point for each silo and condition, silos in the order of the last condition."""
    last = list(results.values())[-1]
    ranked = sorted(silos, key=lambda silo: _or_infinite(last.get(silo, math.nan)))
    shown = ranked[:: math.ceil(len(ranked) / MOST_BARS)]
    entries: list[tuple[str, Line2D | Patch]] = []
    with canvas(4.7, 2.75) as (figure, axes):
        for (name, values), color in zip(results.items(), colors, strict=False):
            heights = [values.get(silo, math.nan) for silo in shown]
            axes.plot(range(1, len(shown) + 1), heights, "o", color=color, markersize=3.2)
            entries.append((name, Line2D([], [], marker="o", linestyle="", color=color)))
        _rank_axis(axes, f"silos, in order of {list(results)[-1]}", len(shown), len(silos))
        axes.yaxis.set_major_formatter(metric_ticks(metric))
        axes.set(ylabel=plain(metric), ylim=(0, min(_upper(results, metric), 1.04 * _top(results))))
        legend(figure, entries)
        return svg(figure, f"{metric} by silo")


def _upper(results: Mapping[str, Mapping[str, float]], metric: str) -> float:
    return 1.12 if metric == "accuracy" else 1.15 * _top(results) or 1.0


def _top(results: Mapping[str, Mapping[str, float]]) -> float:
    return max(finite(values.values() for values in results.values()), default=0.0)


def _or_infinite(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _thousands() -> FuncFormatter:
    return FuncFormatter(lambda value, _: f"{value:,.0f}")


def _size_text(silo: SiloSummary) -> str:
    """Records, and of how many labels where a picture cannot name each."""
    if len(silo.labels) <= len(SERIES) + 1:
        return f"{silo.records:,}"
    present = sum(count > 0 for count in silo.labels.values())
    return f"{silo.records:,} of {count_text(present, 'label')}"


def _stack(axes: Axes, bars: Sequence[tuple[Sequence[int], str]]) -> None:
    """Bars one after the other, of a few silos."""
    start = [0] * len(bars[0][0])
    for counts, color in bars:
        axes.barh(
            range(len(start)), counts, 0.62, start, color=color, edgecolor=SURFACE, linewidth=1
        )
        start = [total + count for total, count in zip(start, counts, strict=True)]


def _columns(axes: Axes, bars: Sequence[tuple[Sequence[int], str]]) -> None:
    """Bars on top of each other, of many silos: those of one color are one thing to draw."""
    start, half = [0] * len(bars[0][0]), 0.45
    for counts, color in bars:
        ends = [total + count for total, count in zip(start, counts, strict=True)]
        corners = [
            [(place - half, low), (place - half, high), (place + half, high), (place + half, low)]
            for place, (low, high) in enumerate(zip(start, ends, strict=True), start=1)
        ]
        axes.add_collection(PolyCollection(corners, facecolors=color, linewidths=0))
        start = ends


def _rank_axis(axes: Axes, label: str, shown: int, every: int) -> None:
    """Silos in some order, unnamed."""
    axes.set(xlabel=label if shown == every else f"{label} ({shown:,} of {every:,})")
    axes.set_xlim(0, shown + 1)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
    axes.grid(visible=False, axis="x")


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


def _stacks(silos: Sequence[SiloSummary]) -> dict[str, list[int]]:
    """Label, or band of ranks -> records in every silo."""
    labels = names_of(silo.labels for silo in silos)
    if not labels:
        return {"records": [silo.records for silo in silos]}
    if len(labels) <= len(SERIES) + 1:  # grey is a colour too
        return {label: [silo.labels.get(label, 0) for silo in silos] for label in labels}
    ranked = [sorted(silo.labels.values(), reverse=True) for silo in silos]
    ends = [*(end for end in BANDS if end < len(labels)), len(labels)]
    bands = {
        _band(start, end, len(labels)): [sum(counts[start:end]) for counts in ranked]
        for start, end in zip([0, *ends], ends, strict=False)
    }
    return {name: counts for name, counts in bands.items() if any(counts)}


def _band(start: int, end: int, labels: int) -> str:
    if start == 0:
        return "its most common label"
    return f"the next {end - start}" if end < labels else "all others"
