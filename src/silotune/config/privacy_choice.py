"""The privacy section as the object that a notebook would write, and its refusals as keys.

Below this floor an error begins with a field (``target_epsilon: ...``); a user of the file format
reads the key (``privacy.target_epsilon: ...``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields

from silotune.privacy import ClientDP, ExampleDP, NoDP, PrivacyChoice

from .errors import ConfigError, Problem
from .privacy_section import PrivacyConfig

KEYS = {
    **{f.name: f"privacy.{f.name}" for cls in (ExampleDP, ClientDP) for f in fields(cls)},
    "batch_size": "train.batch_size",
    "rounds": "train.num_rounds",
    "local_steps": "train.local_steps",
    "num_examples": "data.num_examples",
    "num_held_out": "data.num_held_out",
    "clients": "data.silos",
}
"""Fields of the objects below, and the keys that decide them."""


def privacy_choice(privacy: PrivacyConfig) -> PrivacyChoice:
    """Who is hidden, and at what price.

    Raises:
        ValueError: naming fields, if nothing is proved for the combination.
    """
    match privacy.unit:
        case "example":
            return ExampleDP(**{f.name: getattr(privacy, f.name) for f in fields(ExampleDP)})
        case "client":
            return ClientDP(**{f.name: getattr(privacy, f.name) for f in fields(ClientDP)})
        case "none":
            return NoDP()


def problems(error: ValueError) -> list[Problem]:
    """A refusal from below, line by line, with the keys in place of the fields.

    Raises:
        ValueError: the same, if it names no field.
    """
    found = []
    for line in str(error).splitlines():
        field, colon, text = line.partition(": ")
        if not colon or field not in KEYS:
            raise error
        found.append(Problem(KEYS[field], text))
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
        raise ConfigError(map(str, problems(error))) from error
