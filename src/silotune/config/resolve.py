"""A configuration written out, and compared with another one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from . import rules, yaml
from .schema import ENVIRONMENT, LEAVES, SECTIONS, Config


def dump(config: Config) -> str:
    """The resolved configuration as YAML: home names, every key that applies, a stable order.

    Loading it gives an equal configuration.
    """
    skip = rules.inapplicable(
        config.model, config.data, config.targets, config.method, config.train
    )
    return yaml.write(_without(config.model_dump(mode="json"), "", skip))


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
    return [
        f"{key} ({before.get(key, 'null')} -> {after.get(key, 'null')})"
        for key in {**before, **after}
        if before.get(key, "null") != after.get(key, "null")
    ]


def _determining(config: Config) -> dict[str, str]:
    values = config.model_dump(mode="json")
    own = [key for name in values["method"] if (key := f"method.{name}") not in LEAVES]
    return {
        key: json.dumps(_at(values, key), ensure_ascii=False)
        for key in (*LEAVES, *own)
        if key not in ENVIRONMENT
    }


def _at(values: Mapping[str, Any], key: str) -> Any:
    *sections, name = key.split(".")
    for section in sections:
        values = values[section]
    return values.get(name)  # an option of another method has no value


def _without(values: Mapping[str, Any], prefix: str, skip: frozenset[str]) -> dict[str, Any]:
    """A copy without the keys in ``skip``. Mappings below a key of ours are values, kept whole."""
    kept: dict[str, Any] = {}
    for name, value in values.items():
        key = prefix + name
        if key in SECTIONS:
            if inside := _without(value, f"{key}.", skip):
                kept[name] = inside
        elif key not in skip:
            kept[name] = value
    return kept
