"""Record: what a grid knows of itself and of each run, on the disk.

``grid.json`` says what was begun, once and for all: a grid that changes is another one, but for
cells and seeds that are added. Beside the folder of each run is a note of what only its process
could tell, or of why there is no result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from silotune.config import Config, ConfigError, Written, differences, dump, load_config
from silotune.config import yaml as yaml_door
from silotune.core.files import DamagedError, build, read_json, write_json

from .cells import Cell, Trial, trials
from .grid import Grid, shown_tried

FILE = "grid.json"

CHOICE = "choice.json"
"""What is tuned, as the results of a cell were begun; beside their folders."""


@dataclass(frozen=True, kw_only=True)
class CellRecord:
    """A cell as it was begun.

    Attributes:
        place: of its runs, below the grid's folder.
        labels: axis -> label.
        beside: the baseline that it is, or empty.
        config: its configuration as YAML; empty where it has none.
        refusal: why it has none.
        trials: settings that are tried, in order.
    """

    place: str
    labels: Mapping[str, str]
    beside: str = ""
    config: str = ""
    refusal: str = ""
    trials: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, kw_only=True)
class GridRecord:
    """A grid as it was begun; see ``Grid``.

    Attributes:
        axes: their names.
        compared: those whose labels compete.
        baseline: axis -> label.
        seeds: of results.
        tune: key -> what is tried, for people.
        tuning_seed: of trials.
        beside: baselines beside every result.
        cells: in order.
    """

    axes: Sequence[str]
    compared: Sequence[str]
    baseline: Mapping[str, str]
    seeds: Sequence[int]
    tune: Mapping[str, str]
    tuning_seed: int
    beside: Sequence[str]
    cells: Sequence[CellRecord]

    @property
    def budget(self) -> int:
        """Trials of every cell; 0 where nothing is tuned."""
        return max((len(cell.trials) for cell in self.cells), default=0) if self.tune else 0


@dataclass(frozen=True, kw_only=True)
class Note:
    """What the folder of a run does not say.

    Attributes:
        failed: why it has no result; empty where it has one.
        peak_memory: most bytes that its last process held.
        untrained: metrics of the model before training, on the records of the final score.
        alone: silo -> metrics of what it trains by itself, on the same.
    """

    failed: str = ""
    peak_memory: int | None = None
    untrained: Mapping[str, float] = field(default_factory=dict)
    alone: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def note_of(run: Path) -> Path:
    """Beside the folder of a run."""
    return run.with_name(f"{run.name}.json")


def read_note(run: Path) -> Note | None:
    """None where there is none."""
    path = note_of(run)
    return build(Note, read_json(path), str(path)) if path.is_file() else None


def write_note(run: Path, note: Note) -> None:
    """Write the note of a run.

    Raises:
        RecordError: if it cannot be written.
    """
    run.parent.mkdir(parents=True, exist_ok=True)
    write_json(note_of(run), asdict(note))


def read_choice(cell: Path) -> Mapping[str, Any] | None:
    """By what settings the results of a cell were begun; None if none was, or nothing is tuned.

    Raises:
        RecordError: if it cannot be read.
    """
    path = cell / CHOICE
    if not path.is_file():
        return None
    tuned = read_json(path).get("tuned")
    if not isinstance(tuned, dict):
        raise DamagedError(f"{path}: tuned: holds no settings")
    return tuned


def write_choice(cell: Path, settings: Mapping[str, Any]) -> None:
    """Write by what settings the results of a cell are begun.

    Raises:
        RecordError: if it cannot be written.
    """
    cell.mkdir(parents=True, exist_ok=True)
    write_json(cell / CHOICE, {"tuned": dict(settings)})


def recorded(grid: Grid, cells: Sequence[Cell]) -> GridRecord:
    """A grid as it is to be begun."""
    return GridRecord(
        axes=list(grid.axes),
        compared=list(grid.compared),
        baseline=grid.baseline,
        seeds=grid.seeds,
        tune={key: shown_tried(key, values) for key, values in grid.tune.items()},
        tuning_seed=grid.tuning_seed,
        beside=grid.beside,
        cells=[_cell(grid, cell) for cell in cells],
    )


def _cell(grid: Grid, cell: Cell) -> CellRecord:
    tried: list[Trial] = []
    config, refusal = "", cell.refusal
    if isinstance(cell.config, Config):
        try:
            tried = trials(grid, cell)
            for settings in tried:
                cell.at(settings)
            config = dump(cell.config)
        except ConfigError as error:
            refusal, tried = f"tune: {error}", []
    return CellRecord(
        place=str(cell.place),
        labels=cell.labels,
        beside=cell.beside,
        config=config,
        refusal=refusal,
        trials=tried if grid.tune else [],
    )


def read_record(folder: Path) -> GridRecord | None:
    """What was begun in a folder; None if nothing was.

    Raises:
        RecordError: if it cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    data = read_json(path)
    found = [build(CellRecord, cell, str(path)) for cell in data.get("cells", [])]
    return build(GridRecord, {**data, "cells": found}, str(path), typed=False)


def write_record(folder: Path, record: GridRecord) -> None:
    """Write what is begun.

    Raises:
        RecordError: if it cannot be written.
    """
    write_json(folder / FILE, asdict(record))


def changes(old: GridRecord, new: GridRecord) -> Iterator[str]:
    """What of a grid is not as it was begun; cells and seeds that are added are no such thing.

    Args:
        old: as it was begun.
        new: as it is to go on.
    """
    for name in ("axes", "tune"):
        before, after = _plain(getattr(old, name)), _plain(getattr(new, name))
        if before != after:
            yield f"{name} ({_shown(before)} -> {_shown(after)})"
    if old.tune and old.tuning_seed != new.tuning_seed:
        yield f"tuning_seed ({old.tuning_seed} -> {new.tuning_seed})"
    for name in ("untrained", "silo-alone"):  # which every run has computed, or none
        if (name in old.beside) != (name in new.beside):
            yield f"beside ({name} is {'gone' if name in old.beside else 'new'})"
    if gone := [str(seed) for seed in old.seeds if seed not in new.seeds]:
        yield f"seeds ({', '.join(gone)} is gone)"
    after_by_place = {cell.place: cell for cell in new.cells}
    for cell in old.cells:
        name = ", ".join(cell.labels.values())
        if cell.place not in after_by_place:
            yield f"{name} (is gone)"
        elif cell.config:
            for what in _differences(cell, after_by_place[cell.place]):
                yield f"{name}: {what}"


def configuration(text: str) -> Config:
    """A configuration that ``dump`` wrote; it brings in no code.

    Raises:
        ConfigError: if this version of silotune does not take it.
    """
    settings, _ = yaml_door.parse(text)
    assert isinstance(settings, Mapping)
    return load_config(Written(FILE, settings), of_run=True)


def _differences(old: CellRecord, new: CellRecord) -> list[str]:
    if not new.config:
        return [f"it is refused now: {new.refusal}"]
    if old.config == new.config and old.trials == new.trials:
        return []
    differ = differences(configuration(old.config), configuration(new.config))
    return differ or ([] if old.trials == new.trials else ["what is tried is something else"])


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else list(value)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key}: {tried}" for key, tried in value.items()) or "nothing"
    return ", ".join(map(str, value))
