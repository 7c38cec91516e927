"""Typed: JSON values held against the types that a dataclass declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints


@cache
def declared(cls: type[Any]) -> Mapping[str, Any]:
    """The types of a dataclass's fields."""
    return get_type_hints(cls)


def fits(value: object, kind: Any) -> bool:
    """Whether a JSON value is of a declared type.

    Lists are sequences and tuples. A number that is not finite is null in JSON, so null is a float.

    Args:
        value: as ``json.loads`` gives it.
        kind: plain types, ``Any``, and mappings, sequences and unions of such.
    """
    base, inner = get_origin(kind) or kind, get_args(kind)
    if base is Any:
        return True
    if base in (Union, UnionType):
        return any(fits(value, one) for one in inner)
    if base is float:
        return type(value) in (int, float, NoneType)
    if isinstance(value, dict):
        items = value.values()
        return issubclass(base, Mapping) and all(fits(item, inner[1]) for item in items)
    if isinstance(value, list):
        return issubclass(base, Sequence) and all(fits(item, inner[0]) for item in value)
    return type(value) is base
