"""``compare`` and ``report``: a grid is filled, or read as far as it has come, and shown."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import typer
from rich.console import Console

from silotune.comparison import (
    Compared,
    Progress,
    compare,
    compared,
    compared_runs,
    planned,
)
from silotune.core.files import write_text
from silotune.core.units import count_text
from silotune.reports.comparison_tables import shown, terminal
from silotune.signals import how

from .console import say, speaker
from .errors import ERROR, code_of
from .watch_report import is_grid

TEXTS: Mapping[str, Callable[[Compared], str]] = {
    "markdown": Compared.markdown,
    "latex": Compared.latex,
    "csv": Compared.csv,
    "html": Compared.html,
}
"""Layouts that are for other programs: nothing else goes to stdout."""


def fill(
    grid: Path,
    overrides: Sequence[str],
    output_dir: Path | None,
    at_once: int | None,
    runtime: Literal["processes", "ray"],
    layout: str,
    *,
    plan: bool,
) -> None:
    """Make what is missing of a grid, and show what came of it.

    Args:
        grid: the file.
        overrides: ``key=value`` that win over it.
        output_dir: of its folder.
        at_once: how many runs at a time.
        runtime: where.
        layout: of the table.
        plan: only say what would run.
    """
    console = speaker(as_json=layout in TEXTS)
    if plan:
        _plan(grid, overrides, console)
        return
    try:
        found = compare(
            grid,
            output_dir,
            overrides=overrides,
            at_once=at_once,
            runtime=runtime,
            tell=lambda news: _tell(news, console),
        )
    except KeyboardInterrupt as interrupt:
        words = ["silotune", "compare", str(grid), *overrides]
        words += ["--output-dir", str(output_dir)] if output_dir else []
        words += ["--at-once", str(at_once)] if at_once else []
        words += ["--runtime", runtime] if runtime != "processes" else []
        say(
            console,
            f"{how(interrupt)}; runs that have ended are kept. Continue with: {shlex.join(words)}",
        )
        raise typer.Exit(code_of(interrupt)) from None
    _show(found, layout, console)
    say(console, f"page: {found.folder / 'report.html'}; every run: {found.folder / 'runs.csv'}")
    if found.failed:
        say(
            console,
            f"{count_text(len(found.failed), 'result')} missing; the same command tries "
            "again what failed",
            style="yellow",
        )
        raise typer.Exit(ERROR)


def show(paths: Sequence[Path], output: Path | None, layout: str) -> None:
    """Make the page of a grid or of runs.

    Args:
        paths: one grid, or runs.
        output: of the page.
        layout: of the table.
    """
    console = speaker(as_json=layout in TEXTS)
    if is_grid(paths):
        found = compared(paths[0])
        page = output or paths[0] / "report.html"
    elif output is None:
        raise typer.BadParameter("runs have no folder together: say where", param_hint="--output")
    else:
        page, found = output, compared_runs(paths, output.parent)
    write_text(page, found.html())
    _show(found, layout, console)
    say(console, f"page: {page}")


def _show(found: Compared, layout: str, console: Console) -> None:
    if layout in TEXTS:
        print(TEXTS[layout](found), end="", flush=True)
        return
    console.print(terminal(shown(found.comparison)))
    for text in found.words:
        say(console, text)


def _tell(news: Progress, console: Console) -> None:
    text = f"{news.done}/{news.of} {news.stage}: {news.what}"
    if news.failed:
        say(console, f"{text}: no result: {news.failed}", style="yellow")
    else:
        say(console, text)


def _plan(grid: Path, overrides: Sequence[str], console: Console) -> None:
    plan = planned(grid, overrides)
    results = sum(not cell.refusal for cell in plan.cells)
    trials = sum(len(cell.trials) for cell in plan.cells)
    say(
        console,
        f"{count_text(len(plan.cells), 'cell')}; {count_text(trials, 'trial')} and "
        f"{count_text(results * len(plan.seeds), 'result')} would run",
    )
    for cell in plan.cells:
        name = ", ".join(f"{axis} {label}" for axis, label in cell.labels.items())
        say(console, f"  {name}{f': no result: {cell.refusal}' if cell.refusal else ''}")
