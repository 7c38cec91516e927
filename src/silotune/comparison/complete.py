"""Complete: the runs of a grid that are missing, in parallel; first all trials, then all results.

One process at a time has the grid. Whatever ends it, every run that has ended is kept, and one that
has not is continued.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from silotune.config import Config, ConfigError
from silotune.core.files import RecordError, in_words
from silotune.federation.workers import SILOTUNE
from silotune.runs.folder import RunFolder
from silotune.runs.lock import held
from silotune_link.process import Process, ProcessDied, ProcessStopped

from .cells import Cell, cells
from .grid import Grid, settings_text
from .job import Job, is_done, run_job
from .measure import chosen, of_trials
from .record import (
    CellRecord,
    GridRecord,
    Note,
    changes,
    read_choice,
    read_record,
    recorded,
    write_choice,
    write_note,
    write_record,
)
from .tuning import check_apart, refuse_outside

Run = Callable[[Job], str]
"""Makes a run; gives why there is no result, or nothing."""


@dataclass(frozen=True, kw_only=True)
class Hands:
    """What makes runs.

    Attributes:
        run: from any thread.
        at_once: how many at a time.
        stop: ends those that go on, at once; they have not failed.
    """

    run: Run
    at_once: int = 1
    stop: Callable[[], None] = lambda: None


Runner = Callable[[], Hands]
"""Gives hands, which whoever has asked for them stops."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What has just ended.

    Attributes:
        stage: ``trials`` or ``results``.
        done: runs of it that have ended.
        of: how many there are.
        what: of which cell, and which run of it.
        failed: why it has no result, or empty.
    """

    stage: str
    done: int
    of: int
    what: str
    failed: str


Tell = Callable[[Progress], None]


def begin(grid: Grid, folder: Path) -> tuple[GridRecord, dict[str, Cell]]:
    """See that a grid is in order, and is the one that the folder holds; write it down.

    Returns:
        The record, and its cells by place.

    Raises:
        ConfigError: if it is not in order, or tunes where it must not.
        RecordError: if it is another one than was begun there.
    """
    found = {str(cell.place): cell for cell in cells(grid)}
    record = checked(grid, found)
    if before := read_record(folder):
        if differ := list(changes(before, record)):
            raise RecordError(
                f"grid: {folder} was begun with another one: {'; '.join(differ)}. Go on with that, "
                "or choose another folder (--output-dir); cells and seeds may be added"
            )
    elif RunFolder(folder).run.is_file():
        raise RecordError(
            f"grid: {folder} holds a run; choose another folder (--output-dir) for the grid"
        )
    write_record(folder, record)
    return record, found


def checked(grid: Grid, found: Mapping[str, Cell]) -> GridRecord:
    """A grid whose cells are refused or in order, as far as can be told before anything runs.

    Args:
        grid: what is compared.
        found: its cells, by place.

    Raises:
        ConfigError: if it tunes where it must not.
    """
    record = recorded(grid, list(found.values()))
    if not grid.tune:
        return record
    configs = [cell.config for cell in found.values() if isinstance(cell.config, Config)]
    refuse_outside(configs, record.budget)
    return _apart(record, found)


def complete(grid: Grid, folder: Path, runner: Runner, tell: Tell = lambda _: None) -> GridRecord:
    """Make all runs that are missing.

    Args:
        grid: what is compared.
        folder: of the grid; made if it is not there.
        runner: makes them.
        tell: takes news.

    Raises:
        ConfigError: as ``begin``.
        RecordError: as ``begin``; or if another process has the grid, or the disk is full.
    """
    with held(RunFolder(folder)):
        record, found = begin(grid, folder)
        # Inside out: whoever stops ends the processes that make runs, and only when no run goes on
        # may another have the grid.
        hands = runner()
        with ThreadPoolExecutor(hands.at_once) as pool, ExitStack() as ended:
            ended.callback(hands.stop)
            if grid.tune:
                _make("trials", _trials(record, found, folder), hands.run, pool, tell)
            _make("results", _results(record, found, folder), hands.run, pool, tell)
    return record


def trial_folder(folder: Path, cell: CellRecord, trial: int) -> Path:
    """Of a trial, counted from 0."""
    return folder / cell.place / f"trial-{trial}"


def seed_folder(folder: Path, cell: CellRecord, seed: int) -> Path:
    """Of a result."""
    return folder / cell.place / f"seed-{seed}"


def here() -> Hands:
    """In this process, one after another."""
    return Hands(run=run_job)


WORKER = (*SILOTUNE, "compare-worker")
"""The command of a process that makes runs (``worker``)."""


def log_of(folder: Path) -> Path:
    """Where such processes say what they have to say."""
    return folder / "workers.log"


def processes(folder: Path, count: int) -> Runner:
    """Each run in a process of its own with one thread.

    Args:
        folder: of the grid.
        count: how many at a time.
    """

    def runner() -> Hands:
        log = log_of(folder)
        workers = [Process(WORKER, log) for _ in range(count)]
        free: SimpleQueue[Process] = SimpleQueue()
        for worker in workers:
            free.put(worker)

        def run(job: Job) -> str:
            worker = free.get()
            try:
                return worker.ask(job.to_bytes()).decode(errors="replace")
            except ProcessStopped:
                raise  # which is no failure of the run
            except ProcessDied as error:
                return f"{error}; see {log}"
            finally:
                free.put(worker)

        def stop() -> None:
            for worker in workers:
                worker.stop()

        return Hands(run=run, at_once=count, stop=stop)

    return runner


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class _Task:
    """A job, or why there is none."""

    folder: Path
    what: str
    job: Job | None = None
    refusal: str = ""


def _make(
    stage: str, tasks: Sequence[_Task], run: Run, pool: ThreadPoolExecutor, tell: Tell
) -> None:
    """Make what is missing; runs that fail are notes."""
    missing = [task for task in tasks if not is_done(task.folder)]
    done = len(tasks) - len(missing)
    ahead = {pool.submit(_made, task, run): task for task in missing}
    try:
        for future in as_completed(ahead):
            done += 1
            failed = future.result()
            what = ahead[future].what
            tell(Progress(stage=stage, done=done, of=len(tasks), what=what, failed=failed))
    finally:
        for future in ahead:
            future.cancel()


def _made(task: _Task, run: Run) -> str:
    failed = task.refusal if task.job is None else run(task.job)
    if failed:  # a process that died could not write it
        write_note(task.folder, Note(failed=failed))
    return failed


def _trials(record: GridRecord, found: Mapping[str, Cell], folder: Path) -> list[_Task]:
    return [
        _task(
            found[cell.place],
            trial_folder(folder, cell, i),
            {**settings, "train.seed": record.tuning_seed},
            f"trial {i + 1} of {len(cell.trials)}",
            trial=True,
        )
        for cell in record.cells
        if not cell.refusal
        for i, settings in enumerate(cell.trials)
    ]


def _results(record: GridRecord, found: Mapping[str, Cell], folder: Path) -> list[_Task]:
    tasks = []
    for cell in record.cells:
        settings, refusal = chosen(folder, cell) or {}, cell.refusal
        if record.tune and not settings and not refusal:
            refusal = _no_trial(folder, cell)
        if settings and not refusal:
            _begin_results(folder / cell.place, settings)
        for seed in record.seeds:
            place, what = seed_folder(folder, cell, seed), f"seed {seed}"
            if refusal:
                name = f"{found[cell.place].name}, {what}"
                tasks.append(_Task(folder=place, what=name, refusal=refusal))
                continue
            seeded = {**settings, "train.seed": seed}
            told = "untrained" in record.beside
            tasks.append(_task(found[cell.place], place, seeded, what, untrained=told))
    return tasks


def _begin_results(cell: Path, settings: Mapping[str, Any]) -> None:
    """See that all results of a cell are of one choice, and write that down.

    A trial that had failed, and has a value when it is tried again, may change the choice; what was
    made by the other one is then put aside.
    """
    before = read_choice(cell)
    if before not in (None, settings):
        places = (cell / f"earlier-{i}" for i in count(1))
        aside = next(place for place in places if not place.exists())
        # Notes first: without one a result is not done, whatever ends this in the middle.
        made = sorted(cell.glob("seed-*"), key=lambda path: path.suffix != ".json")
        with in_words(aside):
            aside.mkdir()
            for each in made:
                each.rename(aside / each.name)
    if before != settings:
        write_choice(cell, settings)


def _task(
    cell: Cell,
    folder: Path,
    settings: Mapping[str, Any],
    what: str,
    *,
    untrained: bool = False,
    trial: bool = False,
) -> _Task:
    job = Job(
        folder=str(folder),
        base=cell.base[:2],
        overrides=[*cell.overrides, *settings_text(settings)],
        untrained=untrained,
        trial=trial,
    )
    return _Task(folder=folder, what=f"{cell.name}, {what}", job=job)


def _no_trial(folder: Path, cell: CellRecord) -> str:
    why = next((run.failed for run in of_trials(folder, cell) if run.failed), "none has a value")
    return f"none of its {len(cell.trials)} trials has a result: {why}"


def _apart(record: GridRecord, found: Mapping[str, Cell]) -> GridRecord:
    """Cells that would be tuned on the test are refused; the grid is, where that is true of all."""
    known: dict[str, str] = {}
    errors: dict[str, ConfigError] = {}

    def refusal(cell: CellRecord) -> str:
        config = found[cell.place].config
        if not isinstance(config, Config):
            return cell.refusal
        data = config.data.model_dump_json() + config.model.task
        if data not in known:
            try:
                check_apart(config)
                known[data] = ""
            except ConfigError as error:
                known[data], errors[data] = " ".join(str(error).split()), error
        return cell.refusal or known[data]

    judged = [replace(cell, refusal=refusal(cell)) for cell in record.cells]
    if errors and all(known.values()):
        raise next(iter(errors.values()))
    return replace(record, cells=judged)
