"""Recipe: keys that somebody left to be chosen, filled in by public facts before anything is read.

What a file or an override says wins. So a configuration never holds ``auto`` here: it is written
out as chosen, and says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from sys import float_info
from typing import Any, NamedTuple

from silotune.methods.recipes import Facts, nearest, recipes

from . import keys
from .keys import Setting
from .schema import LEAVES

AUTO = "auto"
LARGEST = float_info.max
"""Whatever is beyond it is refused elsewhere, by its key."""

DEFAULTS, NAME = "defaults", "method.name"


class Filled(NamedTuple):
    """What came of it.

    Attributes:
        settings: by home key.
        reasons: why they are so, each beginning with its key.
        wrong: what cannot be chosen, and where it was asked for.
    """

    settings: dict[str, Setting]
    reasons: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()


def filled(settings: dict[str, Setting]) -> Filled:
    """The settings with a recipe's in place of what is left to it.

    Args:
        settings: by home key, as a file and overrides give them.
    """
    asked = [key for key in (DEFAULTS, NAME) if _value(settings, key) == AUTO]
    task = _value(settings, "model.task")
    if not asked or not isinstance(task, str):  # which is missed elsewhere
        return Filled(settings)
    own = {key: setting for key, setting in settings.items() if key not in asked}
    key = asked[0]
    try:
        recipe = nearest(facts_of(own), recipes(), str(own[NAME].value) if NAME in own else None)
    except ValueError as error:
        if key not in settings:  # it is the default of all, and nobody has asked
            return Filled(own)
        return Filled(own, (), (f"{settings[key].where}: {key}: {error}",))
    said: dict[object, object] = dict(recipe.settings.items())
    chosen = {
        home: item._replace(where=f"{key}: auto")
        for item in keys.flatten(said, (), {(): key})
        if isinstance(item, Setting) and (home := keys.home(item.key))
        if DEFAULTS in asked or home.startswith("method.")
    }
    taken = ", ".join(f"{home}={item.value}" for home, item in chosen.items() if home not in own)
    return Filled({**chosen, **own}, (f"{key}: {taken}, {recipe.why}",))


def facts_of(settings: Mapping[str, Setting]) -> Facts:
    """What settings declare of a run."""
    labels, sizes = _value(settings, "data.labels"), _value(settings, "data.num_examples")
    sites, num = _value(settings, "federation.sites"), _value(settings, "data.silos.num")
    epsilon = _value(settings, "privacy.target_epsilon")
    named = [each for each in (sites, sizes) if isinstance(each, list | dict) and each]
    declared = [*sizes.values()] if isinstance(sizes, dict) else [sizes]
    counted = [n for n in declared if _is_number(n) and n > 0]
    return Facts(
        task=str(_value(settings, "model.task")),
        unit=str(_value(settings, "privacy.unit")),
        model=str(_value(settings, "model.name_or_path") or ""),
        epsilon=float(epsilon) if _is_number(epsilon) and epsilon <= LARGEST else None,
        labels=len(labels) if isinstance(labels, list | dict) else None,
        silos=num if _is_number(num) else len(named[0]) if named else None,
        records=min(counted, default=None),
    )


def _value(settings: Mapping[str, Setting], key: str) -> Any:
    return settings[key].value if key in settings else LEAVES[key].default


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
