"""Compare: a grid in, its runs made where they are missing, tables and pictures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from silotune.core.files import RecordError, write_bytes, write_text
from silotune.reports.comparison import NOT_YET, Comparison, Measurement, words_of
from silotune.reports.comparison import compare as summed_up
from silotune.reports.comparison_page import comparison_page
from silotune.reports.comparison_tables import (
    latex,
    markdown,
    missing_lines,
    shown,
    summary_csv,
    terminal,
)
from silotune.reports.prose import SIMULATION
from silotune.reports.tables import as_text

from .cells import cells
from .complete import Runner, Tell, checked, complete, cores, processes
from .grid import FOLDER_OF_GRIDS, read_grid
from .measure import measured_grid, measured_run
from .ray import on_ray
from .record import GridRecord, read_record
from .tidy import as_csv, as_parquet, columns
from .tuning import NOT_CHARGED

if TYPE_CHECKING:
    import pandas as pd

RUN = "run"
"""The axis of runs that belong to no grid: the names of their folders."""


@dataclass(frozen=True, eq=False, repr=False)
class Compared:
    """Runs that are on the disk, and what they say of each other.

    Attributes:
        folder: of the grid.
        record: what was begun there; None of runs that belong to no grid.
        runs: trials and results, in order.
        comparison: what they come to.
    """

    folder: Path
    record: GridRecord | None
    runs: Sequence[Measurement]
    comparison: Comparison

    def __repr__(self) -> str:
        """The table, and what one must know of it."""
        return as_text(terminal(shown(self.comparison)), *self.words, width=200)

    @property
    def words(self) -> Sequence[str]:
        """What one must know of the table."""
        return [*missing_lines(self.comparison), *self.comparison.notes]

    @property
    def failed(self) -> Sequence[Measurement]:
        """Results that are missing."""
        return [run for run in self.runs if run.failed and not run.trial]

    @cached_property
    def columns(self) -> Mapping[str, Sequence[Any]]:
        """The tidy table: name -> one value a run."""
        return columns(self.runs, self.comparison.axes)

    def to_pandas(self) -> pd.DataFrame:
        """The tidy table: one row a run, trials included."""
        import pandas as pd

        return pd.DataFrame(dict(self.columns))

    def markdown(self) -> str:
        """The table, for a README."""
        words = "".join(f"\n{text}\n" for text in self.words)
        return markdown(shown(self.comparison)) + words

    def latex(self) -> str:
        """The table, for a paper; needs the package booktabs."""
        return latex(shown(self.comparison))

    def csv(self) -> str:
        """The table, one line a group, in plain numbers."""
        return summary_csv(self.comparison)

    def html(self) -> str:
        """The page: tables and pictures, self-contained."""
        return comparison_page(self.comparison)

    def write(self) -> Path:
        """Write ``runs.parquet``, ``runs.csv``, ``table.md``, ``.tex`` and ``.csv``, and the page.

        Returns:
            The page, ``report.html``.

        Raises:
            RecordError: if one cannot be written; what was there is then as it was.
        """
        write_bytes(self.folder / "runs.parquet", as_parquet(self.columns))
        write_text(self.folder / "runs.csv", as_csv(self.columns))
        write_text(self.folder / "table.md", self.markdown())
        write_text(self.folder / "table.tex", self.latex())
        write_text(self.folder / "table.csv", self.csv())
        write_text(page := self.folder / "report.html", self.html())
        return page


def compare(
    grid: str | Path | Mapping[str, Any],
    folder: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    at_once: int | None = None,
    runtime: Literal["processes", "ray"] = "processes",
    runner: Runner | None = None,
    tell: Tell = lambda _: None,
) -> Compared:
    """Make what is missing of a grid of runs, and compare them.

    Each run is made by a process of its own with one thread. Whatever stops it, runs that have
    ended are kept, and the same call goes on with the others; one that failed is tried again.

    Args:
        grid: a YAML file, or the mapping that it holds; see ``Grid``.
        folder: of the grid; None: ``runs/`` and the name of the file.
        overrides: ``key=value`` that win over it: keys of the grid (``seeds=5``), or settings of
            every cell (``data.path=...``).
        at_once: how many runs at a time; None: one for each core, or on a cluster for each GPU.
        runtime: ``processes`` of this machine; or those of a ``ray`` cluster, one a GPU, or one a
            CPU where there is no GPU (``pip install 'silotune[ray]'``): machines of one owner,
            with one disk.
        runner: what makes them, in place of processes.
        tell: takes news.

    Raises:
        ConfigError: with a line for each problem, before anything runs.
        RecordError: if the folder holds another grid, another process has it, or the disk is full.
        ValueError: if Ray is not installed, or its cluster has not what is asked for.
        ConnectionError: if Ray does not start.
    """
    if folder is None and isinstance(grid, Mapping):
        raise ValueError("folder: name one; a grid that is no file has no name")
    if at_once is not None and at_once < 1:
        raise ValueError(f"at_once: {at_once} must be at least 1")
    described = read_grid(grid, overrides)
    place = Path(folder or Path(FOLDER_OF_GRIDS, Path(str(grid)).stem))
    if runner is None:
        ray = runtime == "ray"
        runner = on_ray(place, at_once) if ray else processes(place, at_once or cores())
    complete(described, place, runner, tell)
    found = compared(place)
    found.write()
    return found


def planned(grid: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> GridRecord:
    """What would run, and which cells are refused; nothing is written.

    Raises:
        ConfigError: as ``compare``.
    """
    described = read_grid(grid, overrides)
    return checked(described, {str(cell.place): cell for cell in cells(described)})


def compared(folder: Path) -> Compared:
    """A grid as far as it has come.

    Raises:
        RecordError: if none was begun there, or something is damaged.
    """
    record = read_record(folder)
    if record is None:
        raise RecordError(f"{folder}: no grid was begun here")
    runs = measured_grid(folder, record)
    comparison = summed_up(
        runs,
        title=folder.resolve().name,
        axes=record.axes,
        compared=record.compared,
        baseline=record.baseline,
        notes=_notes(record, runs),
    )
    return Compared(folder, record, runs, comparison)


def compared_runs(paths: Sequence[Path], folder: Path) -> Compared:
    """Runs that were made one by one, each a group of its own.

    Args:
        paths: their folders.
        folder: where tables would be written.

    Raises:
        RecordError: if one holds no run, or is damaged.
    """
    runs = [measured_run(path, {RUN: path.resolve().name}) for path in paths]
    comparison = summed_up(
        runs,
        title="Runs",
        axes=[RUN],
        compared=[RUN],
        baseline={},
        notes=["Each row is one run: without others of other seeds there are no intervals."],
    )
    return Compared(folder, None, runs, comparison)


def _notes(record: GridRecord, runs: Sequence[Measurement]) -> list[str]:
    notes = [SIMULATION] if any("evaluation: simulation" in c.config for c in record.cells) else []
    if record.budget:
        notes.append(
            NOT_CHARGED.format(trials=record.budget, seed=record.tuning_seed)
            + " Tried: "
            + "; ".join(f"{key}: {tried}" for key, tried in record.tune.items())
            + "."
        )
    if fewer := _fewer_trials(runs):
        notes.append(f"Chosen by fewer trials than there are, as others have no result: {fewer}.")
    if at_edge := _at_the_edge(record, runs):
        notes.append(f"Chosen at the end of what was tried, so that more may do better: {at_edge}.")
    return notes


def _fewer_trials(runs: Sequence[Measurement]) -> str:
    """Cells some of whose trials have ended without a value, and why, where others have one."""
    by_cell: dict[str, list[Measurement]] = {}
    for run in (run for run in runs if run.trial and run.failed != NOT_YET):
        by_cell.setdefault(words_of(run.labels), []).append(run)
    return "; ".join(
        f"{name} ({len(ended) - len(without)} of {len(ended)}: {without[0].failed})"
        for name, ended in by_cell.items()
        if 0 < len(without := [run for run in ended if run.failed]) < len(ended)
    )


def _at_the_edge(record: GridRecord, runs: Sequence[Measurement]) -> str:
    """Cells whose choice is the first or last of three or more values of a key, in order."""
    found = []
    for cell in record.cells:
        settings = next((r.tuned for r in runs if r.labels == cell.labels and not r.trial), {})
        for key, value in settings.items():
            tried = sorted({trial[key] for trial in cell.trials if _is_number(trial[key])})
            if len(tried) > 2 and value in (tried[0], tried[-1]):
                found.append(f"{words_of(cell.labels)} ({key} {value:g})")
    return "; ".join(found)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
