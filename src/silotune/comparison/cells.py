"""Cells: what each combination of a grid's labels comes to, or why it can not run.

A baseline beside the results is a cell of its own: its label on the first compared axis says so.
Whether a cell can run is known here as far as its configuration tells; nothing is opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from silotune.config import Config, ConfigError, Written, build, load_config, read_written
from silotune.runs.folder import RunFolder, safe_name

from .grid import LONGEST, RATE, TIMES, Grid, Settings, is_factor, settings_text

PROBE: Settings = {"method": {"name": "head-only"}, "model.head": "trained"}
"""A private linear probe: the head alone, with the same privacy."""

ALONE: Settings = {"train.threads": 1, "runtime": "in-process"}
"""Every run is one process with one thread; many run at a time."""

Trial = Mapping[str, Any]
"""Key -> value that is tried."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One combination.

    Attributes:
        labels: axis -> label.
        overrides: over the base, ``key=value``.
        base: what the base says.
        of_run: whether that is of a run's folder, which brings in no code.
        beside: the baseline that it is; empty where it competes.
    """

    labels: Mapping[str, str]
    overrides: tuple[str, ...]
    base: Written
    of_run: bool
    beside: str = ""

    @property
    def name(self) -> str:
        """For people: ``method fedit, privacy.target_epsilon 6``."""
        return ", ".join(f"{axis} {label}" for axis, label in self.labels.items())

    @property
    def place(self) -> Path:
        """Where its runs are, below the grid's folder."""
        return Path("cells", *map(safe_name, self.labels.values()))

    @cached_property
    def config(self) -> Config | ConfigError:
        """Without what is tuned; or what is wrong with it."""
        try:
            return self.at({})
        except ConfigError as error:
            return error

    @property
    def refusal(self) -> str:
        """Why it can not run, as far as its configuration tells; else empty."""
        return "; ".join(_reasons(self.config)) if isinstance(self.config, ConfigError) else ""

    def at(self, settings: Settings) -> Config:
        """With more settings, such as what is tuned and a seed.

        Raises:
            ConfigError: if they do not go with the rest.
        """
        overrides = [*self.overrides, *settings_text(settings)]
        config = load_config(self.base, overrides, of_run=self.of_run)
        if config.train.per_device_train_batch_size == "auto":
            raise ConfigError(
                [
                    "train.per_device_train_batch_size: auto would find another number in every "
                    "run, as those of a grid share the memory of a machine; give a number"
                ]
            )
        return config


def cells(grid: Grid) -> list[Cell]:
    """All cells in order, and after those of a block the baselines beside it.

    Raises:
        ConfigError: if none of them can run, as the first is refused; or if two would share a
            folder, or one has too long a name for one.
    """
    found = [*_cells(grid)]
    if wrong := [*_wrong_places(found)]:
        raise ConfigError(wrong)
    if all(cell.refusal for cell in found):
        assert isinstance(found[0].config, ConfigError)
        raise found[0].config
    return found


def trials(grid: Grid, cell: Cell) -> list[Trial]:
    """What a cell tries: as many for all cells; one of nothing where nothing is tuned."""
    values = (
        [_resolved(cell, key, value) for value in values] for key, values in grid.tune.items()
    )
    return [dict(zip(grid.tune, chosen, strict=True)) for chosen in product(*values)]


def _resolved(cell: Cell, key: str, value: Any) -> Any:
    if not is_factor(key, value):
        return value
    return value[TIMES] * cell.at({RATE: None}).usual_rate


def _wrong_places(cells: Sequence[Cell]) -> Iterator[str]:
    """Labels that are no folder of one cell alone."""
    wrong = dict[str, None]()
    taken = dict[Path, Cell]()
    for cell in cells:
        for axis, label in cell.labels.items():
            if len(safe_name(label).encode()) > LONGEST:
                wrong[
                    f"axes.{axis}: {label[:60]}... is too long for the name of a folder; write the "
                    "axis as `label: {key: value}`, with a short label"
                ] = None
        other = taken.setdefault(cell.place, cell)
        if other is not cell:
            wrong[
                f"axes: the baseline {cell.beside or other.beside} has the labels of a cell "
                f"({cell.name}); call that otherwise"
            ] = None
    yield from wrong


def _cells(grid: Grid) -> Iterator[Cell]:
    base, shared = _base(grid), settings_text(grid.set)
    of_run = not isinstance(grid.base, Mapping) and _in_run(Path(grid.base))
    if "silo-alone" in grid.beside:
        shared.append('baselines=["silo-alone"]')

    def cell(labels: Mapping[str, str], settings: list[str], beside: str = "") -> Cell:
        whole = (*shared, *settings, *settings_text(ALONE))
        return Cell(labels=labels, overrides=whole, base=base, of_run=of_run, beside=beside)

    first = grid.compared[0]
    for block in product(*(axis for name, axis in grid.axes.items() if name not in grid.compared)):
        around = dict(zip((n for n in grid.axes if n not in grid.compared), block, strict=True))
        rows = []
        for chosen in product(*(grid.axes[name] for name in grid.compared)):
            own = {**around, **dict(zip(grid.compared, chosen, strict=True))}
            labels = {name: own[name] for name in grid.axes}
            rows.append(cell(labels, _settings(grid, labels)))
        yield from rows
        if "pooled" in grid.beside:
            silos = _silos(rows)
            for each in rows:
                renamed = {**each.labels, first: f"{each.labels[first]}, pooled"}
                if not each.refusal:
                    more = settings_text(_pooled(each, silos))
                    yield cell(renamed, [*_settings(grid, each.labels), *more], "pooled")
        if "linear-probe" in grid.beside:
            labels = {name: around.get(name, "linear probe") for name in grid.axes}
            yield cell(labels, [*_settings(grid, around), *settings_text(PROBE)], "linear-probe")


def _settings(grid: Grid, labels: Mapping[str, str]) -> list[str]:
    return [
        text for axis, label in labels.items() for text in settings_text(grid.axes[axis][label])
    ]


def _base(grid: Grid) -> Written:
    """Read once, so that all cells are of the same."""
    if isinstance(grid.base, Mapping):
        return Written("base", grid.base)
    return read_written(Path(grid.base))


def _in_run(base: Path) -> bool:
    return RunFolder(base.parent).run.is_file()


def _pooled(cell: Cell, silos: int) -> Settings:
    """All records at one place, and as many in a step as those of all silos together."""
    config = cell.config
    assert isinstance(config, Config)
    declared = config.data.num_examples
    all_of_them = sum(declared.values()) if isinstance(declared, dict) else (declared or 0) * silos
    return {
        "data.silos": {"num": 1},
        "data.num_examples": all_of_them or None,
        "train.batch_size": config.train.batch_size * silos,
        "train.min_clients": None,
        "train.clients_per_round": None,
        "train.client_sampling_rate": None,
    }


def _silos(cells: Sequence[Cell]) -> int:
    """How many silos there are, by the first cell that has any; only names are read for it."""
    config = next((c.config for c in cells if isinstance(c.config, Config)), None)
    if config is None:
        return 1
    declared = config.data.num_examples
    known = config.data.silos.num or (len(declared) if isinstance(declared, dict) else 0)
    return known or len(build(config).records.client_names())


def _reasons(error: ConfigError) -> Iterator[str]:
    """Without the places of overrides, which the user has not written so."""
    for problem in error.problems:
        place, colon, rest = problem.partition(": ")
        yield rest if colon and place.startswith("override ") else problem
