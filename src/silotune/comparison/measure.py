"""Measure: what the folders of a grid's runs, or of any runs, hold, as measurements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from silotune.reports.comparison import NAN, NOT_YET, Measurement, Point
from silotune.reports.totals import outcome
from silotune.runs.facts import RunFacts, read_facts
from silotune.runs.folder import RoundRecord, RunFolder
from silotune.runs.privacy_statement import read_statement

from .record import CellRecord, GridRecord, Note, read_choice, read_note
from .tuning import best


def measured_grid(folder: Path, record: GridRecord) -> list[Measurement]:
    """All trials and results of a grid, in order; of what is missing why.

    Raises:
        RecordError: if the folder of a run that ended is damaged.
    """
    found = []
    for cell in record.cells:
        found += of_trials(folder, cell)
        tuned = read_choice(folder / cell.place) or chosen(folder, cell) or {}
        found += [
            _run(folder, cell, f"seed-{seed}", seed=seed, tuned=tuned) for seed in record.seeds
        ]
    metric = next((run.metric for run in found if run.metric), "accuracy")
    return [run if run.metric else _named(run, metric) for run in found]


def of_trials(folder: Path, cell: CellRecord) -> list[Measurement]:
    """The trials of a cell, each with its value on valid records.

    Raises:
        RecordError: if the folder of one that ended is damaged.
    """
    return [
        _run(folder, cell, f"trial-{i}", seed=-1, tuned=settings, trial=True)
        for i, settings in enumerate(cell.trials)
    ]


def chosen(folder: Path, cell: CellRecord) -> Mapping[str, Any] | None:
    """What the trials of a cell have chosen; None if none of them has a value.

    Raises:
        RecordError: if the folder of one that ended is damaged.
    """
    index = best(of_trials(folder, cell))
    return None if index is None else cell.trials[index]


def measured_run(
    path: Path,
    labels: Mapping[str, str],
    *,
    tuned: Mapping[str, Any] | None = None,
    beside: str = "",
    trial: bool = False,
    note: Note | None = None,
) -> Measurement:
    """One run that has ended.

    Args:
        path: of its folder.
        labels: of its cell.
        tuned: what trials chose, or what it tries.
        beside: the baseline that it is.
        trial: whether its value is that of its last round, on valid records.
        note: beside the folder.

    Raises:
        RecordError: if the folder is damaged or holds no run.
    """
    folder = RunFolder.existing(path)
    facts, rounds, statement = read_facts(folder), folder.read_rounds(), read_statement(folder)
    totals, note, metric = outcome(rounds, facts.metric), note or Note(), facts.metric
    value, part = (totals.after, "valid") if trial else _final(facts)
    return Measurement(
        labels=labels,
        seed=facts.seed,
        metric=metric,
        beside=beside,
        trial=trial,
        failed="" if math.isfinite(value) else f"its {metric} is no finite number",
        value=value,
        part=part,
        untrained=_number(note.untrained.get(metric)),
        alone={silo: _number(found.get(metric)) for silo, found in note.alone.items()},
        silos=_silos(rounds, metric),
        epsilon=statement.largest_epsilon() if statement else NAN,
        bytes_up=totals.bytes_up,
        bytes_down=totals.bytes_down,
        seconds=totals.seconds,
        peak_memory=_number(note.peak_memory),
        tuned=tuned or {},
        rounds=_points(rounds, metric),
        folder=str(path),
    )


def _run(
    folder: Path,
    cell: CellRecord,
    name: str,
    *,
    seed: int,
    tuned: Mapping[str, Any],
    trial: bool = False,
) -> Measurement:
    path = folder / cell.place / name
    note = read_note(path)
    if note is None or note.failed:
        return Measurement(
            labels=cell.labels,
            seed=seed,
            metric="",
            beside=cell.beside,
            trial=trial,
            failed=NOT_YET if note is None else note.failed,
            tuned=tuned,
            folder=str(path),
        )
    return measured_run(path, cell.labels, tuned=tuned, beside=cell.beside, trial=trial, note=note)


def _named(run: Measurement, metric: str) -> Measurement:
    return Measurement(**{**vars(run), "metric": metric})


def _number(value: float | None) -> float:
    """JSON has no word for what is no number."""
    return NAN if value is None else float(value)


def _final(facts: RunFacts) -> tuple[float, str]:
    """The value of the finished model, and of which records."""
    if facts.scored is None:
        return NAN, ""
    return _number(facts.scored.metrics.get(facts.metric)), facts.scored.part


def _silos(rounds: Sequence[RoundRecord], metric: str) -> dict[str, float]:
    """Of the last round that scored silos."""
    last = next((record.silos for record in reversed(rounds) if record.silos), {})
    return {silo: found[metric] for silo, found in last.items() if metric in found}


def _points(rounds: Sequence[RoundRecord], metric: str) -> list[Point]:
    return [
        Point(round=record.round + 1, value=record.metrics[metric])
        for record in rounds
        if metric in record.metrics
    ]
