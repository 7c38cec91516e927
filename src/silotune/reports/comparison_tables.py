"""The tables of a comparison: its groups as text, laid out for a terminal, Markdown, LaTeX or csv.

What stands in a cell is decided once, in ``shown``; a layout only escapes and aligns it.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich import box
from rich.table import Table
from rich.text import Text

from silotune.core.units import (
    DASH,
    epsilon_text,
    human_bytes,
    human_seconds,
    metric_text,
    names_text,
    number_text,
)

from .comparison import Comparison, Estimate, Group, block_of, estimate

BASELINE = "baseline"
"""In place of a difference, of the group that differences are taken from."""

MOST_NAMED = 6
"""Groups that a sentence names."""

TUNED = "tuned"
"""The column of words behind the numbers."""


@dataclass(frozen=True)
class Row:
    """One group.

    Attributes:
        cells: its texts, as many as there are columns.
        best: whether its score is marked.
        block: rows of one block stand together.
    """

    cells: Sequence[str]
    best: bool
    block: tuple[str, ...]


@dataclass(frozen=True)
class Shown:
    """A table as text.

    Attributes:
        columns: their heads.
        words: how many of these, from the left, hold words; the others hold numbers.
        rows: in order.
    """

    columns: Sequence[str]
    words: int
    rows: Sequence[Row]

    @property
    def score(self) -> int:
        """The column whose best is marked."""
        return self.words

    def is_word(self, column: int) -> bool:
        """Whether a column holds words."""
        return column < self.words or self.columns[column] == TUNED


def shown(comparison: Comparison) -> Shown:
    """What a table of a comparison says; columns of which nothing is known are left out."""
    groups, metric = comparison.groups, comparison.metric
    labels = [[group.labels[axis] for group in groups] for axis in comparison.axes]
    numbers = {
        metric: [score_text(metric, group.score) for group in groups],
        "difference": [_difference(comparison, group) for group in groups],
        "seeds": [str(group.score.n) for group in groups],
        "untrained": [metric_text(metric, group.mean("untrained")) for group in groups],
        "each silo alone": [metric_text(metric, alone(group)) for group in groups],
        "ε": [_epsilon(group) for group in groups],
        "up": [_bytes(group.mean("bytes_up")) for group in groups],
        "down": [_bytes(group.mean("bytes_down")) for group in groups],
        "time": [human_seconds(group.mean("seconds")) for group in groups],
        "memory": [_bytes(group.mean("peak_memory")) for group in groups],
        TUNED: [tuned_text(group) for group in groups],
    }
    always = (metric, "seeds")
    known = {n: cells for n, cells in numbers.items() if n in always or set(cells) != {DASH}}
    rows = [
        Row(cells, group.best, block_of(group.labels, comparison.compared))
        for group, *cells in zip(groups, *labels, *known.values(), strict=True)
    ]
    return Shown([*comparison.axes, *known], len(labels), rows)


def axis_column(axis: str, others: Collection[str]) -> str:
    """The column of an axis: its name, or ``axis NAME`` where another column has that."""
    return f"axis {axis}" if axis in others else axis


def score_text(metric: str, score: Estimate) -> str:
    """``81.2 ± 1.1 %``, or the mean alone where no interval is known."""
    if math.isnan(score.half):
        return metric_text(metric, score.mean)
    if metric == "accuracy":
        return f"{100 * score.mean:.1f} ± {100 * score.half:.1f} %"
    return f"{metric_text(metric, score.mean)} ± {number_text(_short(score.half))}"


def difference_text(metric: str, gap: Estimate) -> str:
    """``+1.2 ± 0.8``, in points for accuracy."""
    if math.isnan(gap.mean):
        return DASH
    scale, digits = (100, ".1f") if metric == "accuracy" else (1, ".3g")
    text = f"{scale * gap.mean:+{digits}}"
    return text if math.isnan(gap.half) else f"{text} ± {scale * gap.half:{digits}}"


def alone(group: Group) -> float:
    """The mean over seeds and silos of what silos reach by themselves."""
    return estimate(estimate(run.alone.values()).mean for run in group.runs).mean


def tuned_text(group: Group) -> str:
    """``learning_rate 0.5``, of all seeds."""
    chosen = group.runs[0].tuned if group.runs else {}
    words = (f"{key.rpartition('.')[2]} {_value(value)}" for key, value in chosen.items())
    return ", ".join(words) or DASH


def terminal(table: Shown) -> Table:
    """For rich; the best are bold, and blocks apart."""
    printed = Table(box=box.SIMPLE_HEAD, header_style="dim", pad_edge=False)
    for i, name in enumerate(table.columns):
        printed.add_column(Text(name), justify="left" if table.is_word(i) else "right")
    for _, block in groupby(table.rows, key=lambda row: row.block):
        for row in block:
            marked = [f"{c} *" if _is_best(table, row, i) else c for i, c in enumerate(row.cells)]
            printed.add_row(*map(Text, marked))
        printed.add_section()
    return printed


def missing_lines(comparison: Comparison) -> list[str]:
    """Sentences for below a table: which groups lack results, and why."""
    return [
        f"No result of {names_text(groups, MOST_NAMED)}: {why}"
        for why, groups in comparison.missing.items()
    ]


def markdown(table: Shown) -> str:
    """A table of GitHub's Markdown; the best are bold."""
    rule = ["---" if table.is_word(i) else "---:" for i in range(len(table.columns))]
    lines = [list(map(_in_markdown, table.columns)), rule]
    lines += _marked(table, _in_markdown, "**{}**")
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def latex(table: Shown) -> str:
    """A ``tabular`` that needs the package booktabs; the best are bold."""
    kinds = "".join("l" if table.is_word(i) else "r" for i in range(len(table.columns)))
    blocks = [row.block for row in table.rows]
    rules = [
        "\\midrule\n" if i and blocks[i - 1] != block else "" for i, block in enumerate(blocks)
    ]
    rows = _marked(table, _in_latex, "\\textbf{{{}}}")
    body = [rule + _latex_line(row) for rule, row in zip(rules, rows, strict=True)]
    head = _latex_line(list(map(_in_latex, table.columns)))
    return (
        f"\\begin{{tabular}}{{{kinds}}}\n\\toprule\n{head}\\midrule\n{''.join(body)}"
        "\\bottomrule\n\\end{tabular}\n"
    )


def summary_csv(comparison: Comparison) -> str:
    """One line a group, in plain numbers: means, half widths, and the rest."""
    numbers = ("untrained", "bytes_up", "bytes_down", "seconds", "peak_memory")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = ["mean", "half_width", "seeds", "difference", "difference_half_width", "best"]
    more = ["alone", "largest_epsilon", *numbers, "tuned", "no_result"]
    told = ["beside", "metric", *heads, *more]
    writer.writerow([*(axis_column(axis, told) for axis in comparison.axes), *told])
    for group in comparison.groups:
        gap = group.difference or Estimate(math.nan, math.nan, 0)
        scores = [group.score.mean, group.score.half, group.score.n, gap.mean, gap.half]
        rest = [alone(group), group.largest_epsilon, *map(group.mean, numbers)]
        words = [comparison.metric, *map(_plain, scores), str(group.best), *map(_plain, rest)]
        tuned = tuned_text(group).replace(DASH, "")
        labels = [group.labels[axis] for axis in comparison.axes]
        writer.writerow([*labels, group.beside, *words, tuned, "; ".join(group.failed)])
    return text.getvalue()


def _difference(comparison: Comparison, group: Group) -> str:
    if group.difference is not None:
        return difference_text(comparison.metric, group.difference)
    labels = {axis: group.labels[axis] for axis in comparison.baseline}
    is_it = comparison.baseline and labels == comparison.baseline and not group.beside
    return BASELINE if is_it else DASH


def _epsilon(group: Group) -> str:
    if group.runs and math.isnan(group.largest_epsilon):
        return "no privacy"
    return epsilon_text(group.largest_epsilon)


def _bytes(count: float) -> str:
    return DASH if math.isnan(count) else human_bytes(count)


def _short(value: float) -> float:
    return float(f"{value:.2g}")


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{key} {_value(inner)}" for key, inner in value.items())
    return number_text(value) if isinstance(value, float) else str(value)


def _plain(value: float) -> str:
    return "" if math.isnan(value) else repr(value)


def _is_best(table: Shown, row: Row, column: int) -> bool:
    return row.best and column == table.score


def _marked(table: Shown, escape: Callable[[str], str], mark: str) -> list[list[str]]:
    """The rows, escaped, with the best marked."""
    return [
        [
            mark.format(escape(cell)) if _is_best(table, row, i) else escape(cell)
            for i, cell in enumerate(row.cells)
        ]
        for row in table.rows
    ]


def _in_markdown(text: str) -> str:
    return re.sub(r"([\\|*_`<>\[\]])", r"\\\1", " ".join(text.split()))


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "ε": r"$\varepsilon$",
    "∞": r"$\infty$",
    DASH: "--",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}


def _in_latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))


def _latex_line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\" + "\n"
