"""The page of a comparison: tables and pictures. Self-contained, without scripts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from markupsafe import Markup

from . import comparison_plots as plots
from .comparison import METHOD, NOT_YET, Comparison, Group, words_of
from .comparison_tables import Row, Shown, difference_text, missing_lines, score_text, shown
from .environment import environment
from .plot_style import themed


def comparison_page(comparison: Comparison) -> str:
    """A comparison as HTML; of one that goes on, what has ended of it."""
    table, by_silo = shown(comparison), plots.by_silo(comparison)
    kept = [i for i in range(len(table.columns)) if not _titles(comparison, i)]
    return (
        environment()
        .get_template("comparison.html")
        .render(
            comparison=comparison,
            columns=[table.columns[i] for i in kept],
            kinds=[_kind(table, i) for i in kept],
            blocks=[
                (_block_title(comparison, block), [_cells(table, row, kept) for row in rows])
                for block, rows in groupby(table.rows, key=lambda row: row.block)
            ],
            missing=missing_lines(comparison),
            tiles=_tiles(comparison),
            method=METHOD,
            pictures=[
                (title, words, [(name, Markup(themed(svg))) for name, svg in found.items()])
                for title, words, found in (
                    ("By epsilon", BY_EPSILON, plots.by_epsilon(comparison)),
                    ("By what travels", BY_BYTES, plots.by_bytes(comparison)),
                    ("By round", BY_ROUND, plots.by_round(comparison)),
                    ("By silo", BY_SILO, {"": by_silo} if by_silo else {}),
                )
                if found
            ],
        )
    )


BY_EPSILON = (
    "Mean over seeds on the records of the final score, with 95 % intervals, against the largest "
    "epsilon that a silo has spent. Runs without privacy have no place here."
)
BY_BYTES = (
    "The same against the bytes of all messages of a run, to the server and back. Up and to the "
    "left is better."
)
BY_ROUND = (
    "Mean over seeds after every scored round, on the records that rounds are scored on, which "
    "are not those of the final score where there are any of these."
)
BY_SILO = (
    "Each line goes from the silo with the lowest mean over seeds to the one with the highest, "
    "after the last scored round, on the silos' own held-out records."
)


def _titles(comparison: Comparison, column: int) -> bool:
    """Whether a column holds labels that a whole block has, which are its title."""
    axes = comparison.axes
    return column < len(axes) and axes[column] not in comparison.compared


def _block_title(comparison: Comparison, block: Sequence[str]) -> str:
    """Its labels in words; nothing where there is one block alone."""
    axes = [axis for axis in comparison.axes if axis not in comparison.compared]
    return words_of(dict(zip(axes, block, strict=True)))


def _kind(table: Shown, column: int) -> str:
    """For the style: of words, or of a number."""
    return "w" if table.is_word(column) else "n"


def _cells(table: Shown, row: Row, kept: Sequence[int]) -> list[tuple[str, str]]:
    """Texts of a row, with what they are."""
    best = row.best
    return [
        (row.cells[i], "n best" if best and i == table.score else _kind(table, i)) for i in kept
    ]


def _tiles(comparison: Comparison) -> list[tuple[str, str, str]]:
    """For each block its best group, or the one with the best mean, and by how much."""
    tiles = []
    for labels, block in comparison.blocks.items():
        known = [group for group in block if group.runs and not group.beside]
        if not known:
            continue
        top = next((group for group in known if group.best), None)
        name = _block_title(comparison, labels) or comparison.metric
        if top is None:
            tiles.append((name, "undecided", _why_none([g for g in block if not g.beside])))
            continue
        who = " · ".join(top.labels[axis] for axis in comparison.compared)
        tiles.append((name, who, _by_how_much(comparison.metric, top)))
    return tiles


def _why_none(competing: Sequence[Group]) -> str:
    if any(NOT_YET in group.failed for group in competing):
        return "some have still to run"
    groups = [group for group in competing if group.runs]
    if len(groups) < 2:
        return "there is one alone"
    if max(group.score.n for group in groups) < 2:
        return "one seed says nothing of others"
    return "no interval of differences puts one before all others"


def _by_how_much(metric: str, group: Group) -> str:
    text = score_text(metric, group.score)
    if group.difference is None:
        return text
    return f"{text}; {difference_text(metric, group.difference)} to the baseline"
