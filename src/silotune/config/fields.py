"""Fields and keys: a refusal from below names the field of an object, a user of the file its key.

    target_epsilon: ...                    ->  privacy.target_epsilon: ...
    lower lr, or largest_update            ->  lower train.learning_rate, or train.largest_update

The word that a line begins with is a field; inside it, words with an underscore are, and lr. What
has another meaning in some message stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache

from .data_section import ColumnsConfig, DataConfig, SilosConfig
from .errors import ConfigError, Problem
from .federation_section import FederationConfig
from .method_section import method_fields
from .privacy_section import PrivacyConfig
from .sections import ModelConfig, TrainConfig
from .targets_section import TargetsConfig

RENAMED: Mapping[str, str] = {
    "model": "model.name_or_path",
    "clients": "data.path",
    "partition": "data.silos",
    "method": "method.name",
    "rounds": "train.num_rounds",
    "lr": "train.learning_rate",
    "folder": "output_dir",
    "local_epochs": "train.num_local_epochs",
    "cohort_rate": "train.client_sampling_rate",
    "client_sampling_rate": "privacy.client_sampling_rate",
    "lr_schedule": "train.lr_scheduler_type",
    "lr_schedule_span": "train.lr_scheduler_span",
    "micro_batch_size": "train.per_device_train_batch_size",
    "eval_batch_size": "train.per_device_eval_batch_size",
    "columns": "data.columns",
    "splits": "data.splits",
    "silos": "data.silos",
    "name": "data.name",
    "text": "data.columns.text",
    "label": "data.columns.label",
    "words": "data.columns.words",
    "tags": "data.columns.tags",
    "spans": "data.columns.spans",
    "unit": "privacy.unit",
}
"""Fields whose keys have other names, or whose names several keys have."""

_WORD = re.compile(r"(?<![\w./`'\-])([a-z]+(?:_[a-z]+)+|lr)(?![\w(/=]|\.\w)")

_UNIT = re.compile(r"(?<![\w.])unit: (?=example|client|none)")


@cache
def keys() -> Mapping[str, str]:
    """Field -> key, for every field that decides one key."""
    sections = {
        "model": ModelConfig.model_fields,
        "data": DataConfig.model_fields,
        "data.columns": ColumnsConfig.model_fields,
        "data.silos": SilosConfig.model_fields,
        "targets": TargetsConfig.model_fields,
        "method": method_fields(),
        "privacy": PrivacyConfig.model_fields,
        "train": TrainConfig.model_fields,
        "federation": FederationConfig.model_fields,
    }
    homes: dict[str, list[str]] = {}
    for section, fields in sections.items():
        for field in fields:
            homes.setdefault(field, []).append(f"{section}.{field}")
    alone = {field: found[0] for field, found in homes.items() if len(found) == 1}
    return {**alone, **RENAMED}


def in_keys(text: str) -> str:
    """A refusal of one or more lines, in the words of the file format."""
    return "\n".join(map(_line, text.splitlines()))


def problems(error: ValueError) -> list[Problem]:
    """A refusal from below, line by line, with the keys in place of the fields.

    Raises:
        ValueError: the same, if it names no field.
    """
    found = []
    for line in str(error).splitlines():
        field, colon, text = line.partition(": ")
        if not colon or field not in keys():
            raise error
        found.append(Problem(keys()[field], _inside(text)))
    return found


def refused(check: Callable[..., object], *args: object) -> list[Problem]:
    """What ``check`` finds wrong with its arguments."""
    try:
        check(*args)
    except ValueError as error:
        return problems(error)
    return []


@contextmanager
def naming_keys() -> Iterator[None]:
    """Refusals from below name keys inside.

    Raises:
        ConfigError: in place of a refusal that names fields.
    """
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(in_keys(str(error)).splitlines()) from error


def _line(line: str) -> str:
    field, colon, text = line.partition(": ")
    if not colon:
        return _inside(line)
    head, dot, rest = field.partition(".")
    if field in keys():
        return f"{keys()[field]}: {_inside(text)}"
    if dot and head in ("splits", "columns"):
        return f"data.{head}.{rest}: {_inside(text)}"
    return _inside(line)


def _inside(text: str) -> str:
    named = _WORD.sub(lambda word: keys().get(word[1], word[1]), text)
    return _UNIT.sub("privacy.unit: ", named)
