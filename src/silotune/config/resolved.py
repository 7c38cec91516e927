"""A configuration written out, and compared with another one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from . import rules, yaml_door
from .schema import ENVIRONMENT, LEAVES, Config


def dump(config: Config) -> str:
    """The resolved configuration as YAML: home names, every key that applies, a stable order.

    Loading it gives an equal configuration.
    """
    skip = rules.inapplicable(config.model, config.data, config.method, config.train)
    return yaml_door.write(_without(config.model_dump(mode="json"), "", skip))


def digest(config: Config) -> str:
    """SHA-256 of everything that determines the result.

    Left out is what says only where a run happens (``ENVIRONMENT``): runtime, folders, devices.
    """
    text = "\n".join(f"{key} = {value}" for key, value in _determining(config).items())
    return hashlib.sha256(text.encode()).hexdigest()


def differences(old: Config, new: Config) -> list[str]:
    """The keys that keep ``new`` from continuing a run of ``old``, with both values.

    Empty exactly if the digests agree.
    """
    before, after = _determining(old), _determining(new)
    return [f"{key} ({before[key]} -> {after[key]})" for key in before if before[key] != after[key]]


def _determining(config: Config) -> dict[str, str]:
    values = config.model_dump(mode="json")
    return {
        key: json.dumps(_at(values, key), ensure_ascii=False)
        for key in LEAVES
        if key not in ENVIRONMENT
    }


def _at(values: Mapping[str, Any], key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


def _without(values: Mapping[str, Any], prefix: str, skip: frozenset[str]) -> dict[str, Any]:
    """A copy without the keys in ``skip``. Mappings below a key of ours are values, kept whole."""
    kept: dict[str, Any] = {}
    for name, value in values.items():
        key = prefix + name
        if key not in LEAVES:
            kept[name] = _without(value, f"{key}.", skip)
        elif key not in skip:
            kept[name] = value
    return kept
