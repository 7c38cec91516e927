"""Overrides: ``key.sub=value`` from the command line, the value read as YAML. Later ones win."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import yaml

from . import keys
from . import yaml as yaml_door
from .keys import Setting
from .schema import SECTIONS

REPLACES: Mapping[str, frozenset[str]] = {
    "privacy.target_epsilon": frozenset({"privacy.noise_multiplier"}),
    "privacy.noise_multiplier": frozenset({"privacy.target_epsilon"}),
    "privacy.unit: none": frozenset(
        f"privacy.{key}"
        for key in ("target_epsilon", "noise_multiplier", "count_noise", "metric_noise")
    ),
    "data.silos.by": frozenset(f"data.silos.{key}" for key in ("num", "split", "alpha")),
    "data.silos.num": frozenset({"data.silos.by"}),
}
"""A key, or a key and a value of it -> what a file may say that can not hold beside it."""

_PLACE = "override "

LONG = 80  # letters of an override that a message repeats


def read(override: str) -> Setting:
    """Split one override at its first '='.

    Raises:
        ValueError: if there is no '=', no key, or the value is not YAML.
    """
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ValueError("write key=value, such as train.num_rounds=3")
    try:
        value, _ = yaml_door.parse(text)
    except yaml.YAMLError as error:
        problem = yaml_door.explain(error)[1]
        raise ValueError(f"the value is not YAML ({problem}); put it in quotes") from error
    return Setting(key.strip(), value, _place(override))


def apply(
    settings: dict[str, Setting], overrides: Sequence[str]
) -> tuple[dict[str, Setting], list[str]]:
    """Settings by home key with the overrides over them, and what is wrong with those.

    A whole section (``data.silos={num: 3}``) replaces the section; null empties it. What is given
    takes the place of what the file says and cannot hold beside it.
    """
    result, wrong = dict(settings), []
    for override in overrides:
        try:
            given = read(override)
        except ValueError as error:
            wrong.append(f"{_place(override)}: {error}")
            continue
        if given.key in SECTIONS:
            result = {k: s for k, s in result.items() if not k.startswith(f"{given.key}.")}
        for item in _parts(given):
            if isinstance(item, str):
                wrong.append(item)
            elif home := keys.home(item.key):
                for key in _replaced(home, item.value):
                    if result.get(key) == settings.get(key):
                        result.pop(key, None)
                result[home] = item
            else:
                wrong.append(f"{given.where}: {item.key}: {keys.unknown(item.key)}")
    return result, wrong


def _replaced(home: str, value: object) -> frozenset[str]:
    found = REPLACES.get(f"{home}: {value}") or REPLACES.get(home)
    return found if found and value is not None else frozenset()


def _parts(given: Setting) -> Iterator[Setting | str]:
    """The override itself, or the settings of the whole section that it gives."""
    return keys.flatten({given.key: given.value}, (), {(): given.where})


def overrode(where: str) -> bool:
    """Whether a setting was given there by an override, and not by a file."""
    return where.startswith(_PLACE)


def _place(override: str) -> str:
    return f"{_PLACE}{override if len(override) <= LONG else override[:LONG] + '...'}"
