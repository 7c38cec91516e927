"""Grid: what is compared: a base configuration, axes, seeds, and what every cell tunes.

A key of the configuration is written as on the command line: dotted, or a whole section, which it
then replaces (``method: {name: fedit, r: 8}``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge

from silotune.config import ConfigError, overrides
from silotune.config.keys import home, unknown
from silotune.config.load import read_mapping
from silotune.config.schema import SECTIONS
from silotune.core.fields import check_value

Settings = Mapping[str, Any]
"""Key of the configuration -> value."""

Axis = Mapping[str, Settings]
"""Label -> the settings that it stands for."""

Beside = Literal["untrained", "silo-alone", "pooled", "linear-probe"]

BESIDE: tuple[Beside, ...] = get_args(Beside)
"""Baselines that can stand beside every result."""

RATE = "train.learning_rate"

TIMES = "times_usual"
"""``train.learning_rate: {times_usual: [...]}``: factors of the rate that a run takes by itself."""

OURS: Mapping[str, str] = {
    "train.seed": "give the grid's seeds",
    "train.threads": "every run of a grid has one thread",
    "runtime": "every run of a grid is one process",
    "output_dir": "runs lie in the grid's own folder",
    "baselines": "name silo-alone under beside",
}
"""Keys that a grid sets by itself -> what to do instead."""

FOLDER_OF_GRIDS = "runs"

LONGEST = 255
"""Bytes of the name of a file."""

LONG = 80
"""Letters of a change that a message repeats."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A grid of runs.

    Attributes:
        base: a configuration, or the path of one, relative to the current folder as all paths are.
        axes: name -> label -> settings. Cells are all combinations, in order.
        set: settings of every cell, over the base.
        seeds: of the runs of each cell.
        tune: key -> values of which each cell takes the best, all combinations tried once.
        tuning_seed: of these trials; none of ``seeds``, so that no result is chosen by its luck.
        baseline: axis -> label of what differences are taken from. Its axes are what is compared;
            without one the first axis is.
        beside: baselines to stand beside every result.
    """

    base: str | Settings
    axes: Mapping[str, Axis]
    set: Settings = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    tune: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    tuning_seed: int = 1000
    baseline: Mapping[str, str] = field(default_factory=dict)
    beside: tuple[Beside, ...] = ()

    @property
    def compared(self) -> tuple[str, ...]:
        """The axes whose labels compete."""
        return tuple(self.baseline) or tuple(self.axes)[:1]


def read_grid(source: str | Path | Mapping[str, Any], changes: Sequence[str] = ()) -> Grid:
    """A grid from a YAML file, or from the mapping that such a file holds.

    Args:
        source: the file or the mapping.
        changes: ``key=value`` that win over it: a key of the grid itself (``seeds=5``), or a
            setting of every cell (``data.path=...``).

    Raises:
        ConfigError: with one line for each problem.
    """
    if isinstance(source, Mapping):
        return _grid(source, changes, "grid")
    path = Path(source)
    value, _ = read_mapping(path, "docs/how-to/compare.md shows one: it")
    return _grid({str(key): inner for key, inner in value.items()}, changes, str(path))


def _sorted_out(changes: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Keys of the grid itself, settings of every cell, and what is not ``key=value``."""
    known = {each.name for each in fields(Grid)}
    own, settings, wrong = dict[str, Any](), dict[str, Any](), []
    for text in changes:
        try:
            change = overrides.read(text)
        except ValueError as error:
            wrong.append(f"{text[:LONG]}: {error}")
            continue
        (own if change.key in known else settings)[change.key] = change.value
    return own, settings, wrong


def _with_settings(given: Mapping[str, Any], settings: Settings) -> Mapping[str, Any]:
    """A grid, whose parts have their form, with settings of every cell that win over its own."""
    homes = {_home(key) for key in settings}
    kept = {k: v for k, v in (given.get("set") or {}).items() if _home(k) not in homes}
    return {**given, "set": {**kept, **settings}}


def _refused(given: Mapping[str, Any], settings: Settings) -> Iterator[str]:
    for key in settings:
        if part := _taken(given, key):
            yield f"{key}: {part} of the grid sets it, so that it cannot be given"


def _taken(given: Mapping[str, Any], key: str) -> str:
    """Which part of a grid sets a key for its cells, or nothing."""
    for name, values in given["axes"].items():
        labels = values.values() if isinstance(values, Mapping) else [{name: None}]
        if any(_overlap(_home(k), _home(key)) for settings in labels for k in settings or ()):
            return f"axes.{name}"
    if any(_overlap(_home(k), _home(key)) for k in given.get("tune") or ()):
        return "tune"
    return ""


def _home(key: str) -> str:
    return home(key) or key


def _grid(given: Mapping[str, Any], changes: Sequence[str], place: str) -> Grid:
    own, settings, unread = _sorted_out(changes)
    given = {**given, **own}
    if wrong := list(_wrong_keys(given)) or list(_wrong_values(given)):
        raise ConfigError(f"{place}: {text}" for text in wrong)
    if wrong := [*_refused(given, settings), *unread]:
        raise ConfigError(wrong)
    given = _with_settings(given, settings)
    seeds = given.get("seeds", 3)
    grid = Grid(
        base=given["base"],
        axes={name: _axis(name, values) for name, values in given["axes"].items()},
        set=given.get("set") or {},
        seeds=tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds),
        tune={key: _values(key, tried) for key, tried in (given.get("tune") or {}).items()},
        tuning_seed=given.get("tuning_seed", 1000),
        baseline={k: label_of(v) for k, v in (given.get("baseline") or {}).items()},
        beside=tuple(given.get("beside") or ()),
    )
    if wrong := [*_unknown_settings(grid), *_contradictions(grid)]:
        raise ConfigError(f"{place}: {text}" for text in wrong)
    return grid


def label_of(value: object) -> str:
    """How a plain value is called: ``6``, ``true``, ``null``, and words as they are."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _wrong_keys(given: Mapping[str, Any]) -> Iterator[str]:
    known = [each.name for each in fields(Grid)]
    for key in given:
        if key not in known:
            yield f"{key}: a grid has no such key; there are {', '.join(known)}"
    for key in ("base", "axes"):
        if not given.get(key):
            yield f"{key}: is missing; a grid needs a base and axes"


def _wrong_values(given: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(given["base"], str | Path | Mapping):
        yield "base: give the path of a configuration, or the configuration itself"
    for key in ("axes", "set", "tune", "baseline"):
        if not isinstance(given.get(key) or {}, Mapping):
            yield f"{key}: takes `key: value` pairs"
            return
    yield from _wrong_names(given)
    for name, values in given["axes"].items():
        yield from _wrong_axis(str(name), values)
    for key, values in (given.get("tune") or {}).items():
        yield from _wrong_tried(key, values)
    seeds, beside = given.get("seeds", 3), given.get("beside") or ()
    if not isinstance(seeds, int | list | tuple) or not isinstance(beside, list | tuple):
        yield "seeds, beside: take a list; of seeds a number says how many"
        return
    kind = Annotated[int, Ge(0)]
    hint = Annotated[int, Ge(1)] if isinstance(seeds, int) else tuple[kind, ...]
    try:
        check_value("seeds", hint, seeds if isinstance(seeds, int) else tuple(seeds))
        check_value("tuning_seed", kind, given.get("tuning_seed", 1000))
        check_value("beside", tuple[Beside, ...], tuple(beside))
    except ValueError as error:
        yield str(error)
        return
    if not isinstance(seeds, int) and (not seeds or len(set(seeds)) < len(seeds)):
        yield "seeds: name each once, and one at least"


def _wrong_names(given: Mapping[str, Any]) -> Iterator[str]:
    """Keys that are no words; what labels are called is free."""
    axes = given["axes"]
    bundles = [own for axis in axes.values() if isinstance(axis, Mapping) for own in axis.values()]
    parts = [("axes", axes), ("set", given.get("set")), ("tune", given.get("tune"))]
    parts += [("axes", own) for own in bundles if isinstance(own, Mapping)]
    for place, part in parts:
        for key in part or ():
            if not isinstance(key, str):
                yield f"{place}: {label_of(key)}: a key is a word, such as train.num_rounds"


def _wrong_axis(name: str, values: object) -> Iterator[str]:
    if isinstance(values, Mapping) and values:
        if len(set(map(label_of, values))) < len(values):
            yield f"axes.{name}: has a label twice, once as a word; keep one"
        for label, settings in values.items():
            if not isinstance(settings or {}, Mapping):
                yield (
                    f"axes.{name}.{label}: takes the keys that it stands for, such as "
                    "{method: {name: fedit}}; plain values of one key are a list"
                )
    elif isinstance(values, list | tuple) and values:
        if odd := [value for value in values if isinstance(value, Mapping | list | tuple)]:
            yield (
                f"axes.{name}: {label_of(odd[0])[:60]} needs a name: write the axis as "
                f"`label: {{{name}: ...}}`"
            )
        elif len(set(map(label_of, values))) < len(values):
            yield f"axes.{name}: has a value twice; keep one"
    else:
        yield f"axes.{name}: takes a list of values, or `label: {{key: value}}`; one at least"


def _wrong_tried(key: str, values: object) -> Iterator[str]:
    tried, factors = values, isinstance(values, Mapping)
    if isinstance(values, Mapping):
        if key != RATE or list(values) != [TIMES]:
            yield f"tune.{key}: takes a list of values (only {RATE} also takes {{{TIMES}: [...]}})"
            return
        tried = values[TIMES]
    if not isinstance(tried, list | tuple) or not tried:
        yield f"tune.{key}: takes a list of values, one at least"
    elif len(set(map(label_of, tried))) < len(tried):
        yield f"tune.{key}: has a value twice; keep one"
    elif factors and not all(map(_is_above_0, tried)):
        yield f"tune.{key}: {TIMES} takes numbers above 0"
    elif not factors and any(is_factor(key, value) for value in tried):
        yield f"tune.{key}: takes numbers and auto, or {{{TIMES}: [...]}} in place of the list"


def _is_above_0(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and 0 < value < math.inf


def _axis(name: str, values: Any) -> Axis:
    if isinstance(values, Mapping):
        return {label_of(label): dict(settings or {}) for label, settings in values.items()}
    return {label_of(value): {name: value} for value in values}


def _values(key: str, tried: Any) -> tuple[Any, ...]:
    """Values of one key; factors of the usual rate as mappings of one."""
    if isinstance(tried, Mapping):
        return tuple({TIMES: factor} for factor in tried[TIMES])
    return tuple(tried)


def _unknown_settings(grid: Grid) -> Iterator[str]:
    for place, key in _keys(grid):
        if key not in SECTIONS and home(key) is None:
            yield f"{place}: {key}: {unknown(key)}"
        elif _home(key) in OURS:
            yield f"{place}: {key}: {OURS[_home(key)]}"


def _keys(grid: Grid) -> Iterator[tuple[str, str]]:
    """Every key that is set, and where."""
    yield from (("set", key) for key in grid.set)
    yield from (("tune", key) for key in grid.tune)
    for name, axis in grid.axes.items():
        plain = all(list(settings) == [name] for settings in axis.values())
        for label, settings in axis.items():
            place = f"axes.{name}" if plain else f"axes.{name}.{label}"
            yield from ((place, key) for key in settings)
            if plain:
                break


def _contradictions(grid: Grid) -> Iterator[str]:
    touched: dict[str, set[str]] = {
        f"axes.{name}": {_home(k) for settings in axis.values() for k in settings}
        for name, axis in grid.axes.items()
    }
    touched["tune"] = {_home(key) for key in grid.tune}
    for (one, ours), (other, theirs) in combinations(touched.items(), 2):
        for key, also in sorted((k, a) for k in ours for a in theirs if _overlap(k, a)):
            inner = max(key, also, key=len)
            yield f"{one} and {other} both set {inner}; a key belongs to one of them"
    for key in touched["tune"]:
        if key.split(".")[0] in ("data", "evaluation", "federation"):
            yield f"tune.{key}: says which records there are and who sees them; make it an axis"
    if grid.tuning_seed in grid.seeds and grid.tune:
        yield (
            f"tuning_seed: {grid.tuning_seed} is among seeds, whose result would be chosen by its "
            "luck; take another"
        )
    for axis, label in grid.baseline.items():
        if axis not in grid.axes:
            yield f"baseline.{axis}: is no axis; there are {', '.join(grid.axes)}"
        elif label not in grid.axes[axis]:
            yield f"baseline.{axis}: {label} is none of {', '.join(grid.axes[axis])}"


def _overlap(one: str, other: str) -> bool:
    """Whether two keys are the same, or one holds the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def settings_text(settings: Settings) -> list[str]:
    """As overrides of a configuration; what JSON has no word for, as a date, is a word."""
    return [
        f"{key}={json.dumps(value, ensure_ascii=False, default=str)}"
        for key, value in settings.items()
    ]


def is_factor(key: str, value: object) -> bool:
    """Whether a value that is tried is a factor of the usual rate, and not the key's own."""
    return key == RATE and isinstance(value, Mapping)


def shown_tried(key: str, values: Sequence[Any]) -> str:
    """What is tried of a key, for people."""
    if values and is_factor(key, values[0]):
        return f"{', '.join(f'{value[TIMES]:g}' for value in values)} times the usual one"
    return ", ".join(map(label_of, values))
