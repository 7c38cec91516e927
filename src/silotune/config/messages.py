"""Pydantic's errors in plain words, one problem a key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError

from .errors import REFUSED, Problem
from .schema import LEAVES, SECTIONS, leaf

LIMITS: Mapping[str, str] = {
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "string_too_short": "must not be empty",
    "finite_number": "must be a finite number",
}
WORDS: Mapping[object, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    NoneType: "null",
}
PLURALS: Mapping[str, str] = {"a whole number": "whole numbers", "text": "texts"}


def problems(error: ValidationError, values: Mapping[str, object]) -> Iterator[Problem]:
    """What pydantic found in single keys; what the rules found is left out.

    Args:
        error: the failed validation of a ``Config``.
        values: home key -> value as given.
    """
    found: dict[str, list[Any]] = {}
    for entry in error.errors(include_url=False):
        if key := _key(entry["loc"]):
            found.setdefault(key, []).append(entry)
    for key, entries in found.items():
        if key in SECTIONS:  # a section with required keys that is absent altogether
            yield from (_missing(leaf) for leaf in _required(key))
        elif entries[0]["type"] == "missing":
            yield _missing(key)
        else:
            yield Problem(key, _text(key, entries, values.get(key)))


def kind(annotation: Any) -> str:
    """What may stand behind a key, in words: 'a number or null'."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return kind(inner[0])
    if origin is Literal:
        return f"one of {', '.join(inner)}" if len(inner) > 1 else str(inner[0])
    if origin in (Union, UnionType):
        return " or ".join(kind(part) for part in inner)
    if origin is tuple:
        return f"a list of {PLURALS.get(kind(inner[0]), kind(inner[0]))}"
    if origin is dict:
        return f"a mapping of {kind(inner[0])} to {kind(inner[1])}"
    return WORDS[annotation]


def shown(value: object) -> str:
    """A value as a user wrote it, cut to a short length."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _key(loc: tuple[int | str, ...]) -> str | None:
    """The longest beginning of a location that is a key of ours."""
    for end in range(len(loc), 0, -1):
        key = ".".join(map(str, loc[:end]))
        if key in SECTIONS or leaf(key):
            return key
    return None


def _required(section: str) -> Iterator[str]:
    for key, field in LEAVES.items():
        if key.startswith(f"{section}.") and field.is_required():
            yield key


def _missing(key: str) -> Problem:
    return Problem(key, f"is missing; set it{_example(key)}")


def _text(key: str, entries: list[Any], value: object) -> str:
    for entry in entries:
        if entry["type"] in LIMITS:
            limit = LIMITS[entry["type"]].format(**entry.get("ctx", {}))
            return f"{limit}, not {shown(entry['input'])}{_example(key)}"
        if entry["type"] == REFUSED:
            return str(entry["msg"])
    field = leaf(key)
    annotation = field.annotation if field else None
    return f"must be {kind(annotation)}, not {shown(value)}{_guess(key, annotation, value)}"


def _guess(key: str, annotation: Any, value: object) -> str:
    """What was probably meant, or an example."""
    words = _words(annotation)
    if words and isinstance(value, str):
        near = get_close_matches(value, words, 1)
        return f"; did you mean {near[0]}?" if near else ""
    if get_origin(annotation) is tuple and isinstance(value, str):
        return f"; write [{value}]"
    return _example(key)


def _words(annotation: Any) -> tuple[str, ...]:
    """Those that a key takes, if it takes words and null alone."""
    inner = get_args(annotation)
    if get_origin(annotation) is Literal:
        return inner
    rest = [part for part in inner if part is not type(None)]
    return _words(rest[0]) if len(rest) == 1 < len(inner) else ()


def _example(key: str) -> str:
    field = leaf(key)
    examples = field.examples if field else None
    return f"; for example {examples[0]}" if examples else ""
