"""From a YAML file and overrides to a ``Config``, or to every problem at once.

Relative ``data.path`` and ``model.name_or_path`` are relative to the current working directory,
not to the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from . import keys, messages, own_method, rules
from . import yaml as yaml_door
from .data_section import DataConfig
from .errors import ConfigError, Problem
from .federation_section import FederationConfig
from .keys import Setting
from .method_section import DEFAULT, MethodConfig, read_section, section_model
from .overrides import apply, overrode
from .privacy_section import PrivacyConfig
from .recipe import filled
from .schema import LEAVES, SECTIONS, Config, leaf
from .sections import ModelConfig, TrainConfig
from .targets_section import TargetsConfig
from .yaml import KeyPath

S = TypeVar("S", bound=BaseModel)
NAME = "method.name"


class Written(NamedTuple):
    """What a file says, for who takes it more than once.

    Attributes:
        place: the file, for messages.
        value: its mapping.
        lines: the 1-based line of each key, as far as it is known.
    """

    place: str
    value: Mapping[Any, Any]
    lines: Mapping[KeyPath, int] = {}


def load_config(
    path: Path | Written | None, overrides: Sequence[str] = (), *, of_run: bool = False
) -> Config:
    """Read a configuration.

    Args:
        path: a YAML file, or what one says; None for the overrides alone.
        overrides: ``key.sub=value``; later ones win, and all win over the file.
        of_run: whether the file is in the folder of a run, and not the user's own: then a method's
            class that it names is not imported.

    Raises:
        ConfigError: with one line for each problem: place, key, what is wrong, the fix.
    """
    given = read_written(path) if isinstance(path, Path) else path
    place = given.place if given else "configuration"
    settings, wrong = _settings(given) if given else ({}, [])
    written = settings.get(NAME) if of_run else None
    settings, more = apply(settings, overrides)
    wrong += more
    settings, reasons, unchosen = filled(settings)
    wrong += unchosen
    if unknown := _bring_in(settings, written):
        wrong.append(unknown)
        settings = _without_method(settings)
    settings, more = _of_method(settings)
    wrong += more
    if isinstance(path, Path):
        settings.setdefault("output_dir", Setting("output_dir", f"runs/{path.stem}", place))
    try:
        config = Config.model_validate(_nested(settings))
    except ValidationError as error:
        wrong += [f"{_where(p, settings, place)}: {p}" for p in _problems(error, settings)]
        raise ConfigError(wrong) from error
    if wrong:
        raise ConfigError(wrong)
    return config.chosen_for(reasons)


def dropped(path: Path, overrides: Sequence[str]) -> list[str]:
    """Keys of a file that overrides put aside and give no other value.

    Args:
        path: a YAML file.
        overrides: ``key.sub=value``.

    Returns:
        Each as ``key (file:line)``.
    """
    written, _ = _settings(read_written(path))
    left, _ = apply(written, overrides)
    lost = [s for home, s in written.items() if home not in left and s.value is not None]
    return [f"{s.key} ({s.where})" for s in lost]


def _bring_in(settings: Mapping[str, Setting], written: Setting | None) -> str:
    """Import the class that is named as the method; what is wrong, or nothing.

    Args:
        settings: by home key.
        written: what only the folder of a run names, which is not imported.
    """
    named = settings.get(NAME)
    if named is None or not own_method.is_path(named.value):
        return ""
    path = str(named.value)
    try:
        if named is not written:
            own_method.import_method(path)
        own_method.check_known(path)
    except ValueError as error:
        return f"{named.where}: {NAME}: {error}"
    return ""


def _without_method(settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """All but the method's name and options: nobody knows what these mean."""
    common = {f"method.{key}" for key in section_model(DEFAULT).model_fields} - {NAME}
    return {
        home: s for home, s in settings.items() if home in common or not home.startswith("method.")
    }


def _of_method(settings: dict[str, Setting]) -> tuple[dict[str, Setting], list[str]]:
    """The settings without keys of ``method`` that no method has, and what is wrong with these."""
    name = settings[NAME].value if NAME in settings else DEFAULT
    own = section_model(name).model_fields
    strange = {
        home: setting
        for home, setting in settings.items()
        if home.startswith("method.") and leaf(home) is None
    }
    wrong = [f"{s.where}: {s.key}: {keys.unknown(home, own)}" for home, s in strange.items()]
    return {home: s for home, s in settings.items() if home not in strange}, wrong


def read_written(path: Path) -> Written:
    """What the file of a configuration says.

    Raises:
        ConfigError: if it cannot be read.
    """
    value, lines = read_mapping(path, "`silotune init`")
    return Written(str(path), {str(key): inner for key, inner in value.items()}, lines)


def _settings(written: Written) -> tuple[dict[str, Setting], list[str]]:
    """The settings of a file by home key, and what is wrong with its keys."""
    place, value, lines = written
    places = {(): place, **{key: f"{place}:{line}" for key, line in lines.items()}}
    settings: dict[str, Setting] = {}
    wrong: list[str] = []
    for item in keys.flatten(value, (), places):
        if isinstance(item, str):
            wrong.append(item)
            continue
        home = keys.home(item.key)
        if home is None:
            wrong.append(f"{item.where}: {item.key}: {keys.unknown(item.key)}")
        elif home in settings:
            first = settings[home]
            wrong.append(
                f"{item.where}: {home}: is given twice, as {first.key} ({first.where}) and as "
                f"{item.key}; keep one"
            )
        else:
            settings[home] = item
    return settings, wrong


def read_mapping(path: Path, writer: str) -> tuple[Mapping[object, object], Mapping[KeyPath, int]]:
    """The mapping in a YAML file, and the 1-based line of each key.

    Args:
        path: of the file.
        writer: the command that writes such files.

    Raises:
        ConfigError: if there is none.
    """
    try:
        value, lines = yaml_door.parse(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise ConfigError(
            [f"{path}: there is no such file; {writer} writes one to begin with"]
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError([f"{path}: cannot be read ({reason}); give a YAML file"]) from error
    except yaml.YAMLError as error:
        line, problem = yaml_door.explain(error)
        place = f"{path}:{line}" if line else str(path)
        raise ConfigError(
            [f"{place}: not valid YAML: {problem}; check indentation, colons and quotes there"]
        ) from error
    if not isinstance(value, Mapping):
        raise ConfigError(
            [f"{path}: must hold `key: value` pairs at the top level; {writer} writes some"]
        )
    return value, lines


def _nested(settings: Mapping[str, Setting]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for home, setting in settings.items():
        *sections, leaf = home.split(".")
        inner = nested
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[leaf] = setting.value
    return nested


def _problems(error: ValidationError, settings: Mapping[str, Setting]) -> list[Problem]:
    """What is wrong with single keys, then what the readable keys do wrong together."""
    values = {home: setting.value for home, setting in settings.items()}
    single = list(messages.problems(error, values))
    broken = {problem.key for problem in single}
    readable = {home: s for home, s in settings.items() if home not in broken}
    absent = {key.split(".")[0] for key in broken if key in LEAVES and LEAVES[key].is_required()}
    together = rules.problems(_parts(_nested(readable), absent, broken))
    return single + [problem for problem in together if not _doubtful(problem.key, broken)]


def _parts(nested: Mapping[str, Any], absent: set[str], broken: set[str]) -> rules.Parts:
    """What is left without the broken keys; a section whose required keys are broken is absent."""

    def part(name: str, section: type[S]) -> S | None:
        return None if name in absent else section.model_validate(nested.get(name, {}))

    return rules.Parts(
        part("model", ModelConfig),
        part("data", DataConfig),
        None if "method" in absent else _section(nested),
        part("privacy", PrivacyConfig),
        part("train", TrainConfig),
        None if "evaluation" in broken else nested.get("evaluation", "simulation"),
        tuple(nested.get("baselines", ())),
        part("federation", FederationConfig),
        None if "runtime" in broken else nested.get("runtime", "in-process"),
        part("targets", TargetsConfig),
        None if "crowd" in broken else nested.get("crowd", 1),
    )


def _section(nested: Mapping[str, Any]) -> MethodConfig:
    return MethodConfig.model_validate(read_section(nested.get("method", {})))


def _doubtful(key: str, broken: set[str]) -> bool:
    """Whether a problem may come only from a broken key beside it, replaced by its default."""
    section = key if key in SECTIONS else key.rpartition(".")[0]
    return any(k.rpartition(".")[0] == section for k in broken)


def _where(problem: Problem, settings: Mapping[str, Setting], place: str) -> str:
    """Where the key, or failing that another key of its section in the file, was given."""
    if problem.key in settings:
        return settings[problem.key].where
    section = problem.key if problem.key in SECTIONS else problem.key.rpartition(".")[0]
    inside = [s.where for key, s in settings.items() if key.startswith(f"{section}.")]
    return next((where for where in reversed(inside) if not overrode(where)), place)
