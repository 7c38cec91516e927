"""What a field of a frozen choice takes, by its annotation: checked, and said in words."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt, MinLen


def check_fields(choice: object) -> None:
    """Refuse values that the annotations of a dataclass do not allow.

    Fields that are neither numbers, words nor made of them are left to whoever uses them.

    Raises:
        ValueError: naming the field.
    """
    kind: type = type(choice)
    for name, hint in _plain_fields(kind).items():
        check_value(name, hint, getattr(choice, name))


def check_value(name: str, hint: Any, value: object) -> None:
    """The same for one value.

    Raises:
        ValueError: naming the field.
    """
    if wrong := _wrong(hint, value):
        raise ValueError(f"{name}: {wrong}, not {_shown(value)}")


@cache
def _plain_fields(choice: type) -> Mapping[str, Any]:
    hints = get_type_hints(choice, include_extras=True)
    return {f.name: hints[f.name] for f in dataclasses.fields(choice) if _plain(hints[f.name])}


def _plain(hint: Any) -> bool:
    """Whether values can be told from their annotation: numbers, words, and lists of them."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _plain(inner[0])
    if origin in (Union, UnionType, tuple):
        return all(part is Ellipsis or _plain(part) for part in inner)
    return origin is Literal or hint in _WORDS


def kind(hint: Any) -> str:
    """What an option takes, in words: 'a number or null'."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return kind(inner[0])
    if origin is Literal:
        return f"one of {', '.join(inner)}"
    if origin in (Union, UnionType):
        return " or ".join(map(kind, inner))
    if origin is tuple:
        return f"a list, each {kind(inner[0])}"
    if origin is dict:
        return f"a mapping of {kind(inner[0])} to {kind(inner[1])}"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))


_WORDS: Mapping[object, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    NoneType: "null",
}


def _wrong(hint: Any, value: object) -> str:
    """What is wrong with a value; empty if nothing is."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _wrong(inner[0], value) or next(_limits(inner[1:], value), "")
    if origin in (Union, UnionType):
        return _wrong_for_all(hint, value)
    if origin is tuple and isinstance(value, tuple):
        return next(filter(None, (_wrong(inner[0], item) for item in value)), "")
    if origin is dict and isinstance(value, Mapping):
        parts = [(inner[i], part) for item in value.items() for i, part in enumerate(item)]
        return next(filter(None, (_wrong(*part) for part in parts)), "")
    if not _fits(hint, value):
        return f"must be {kind(hint)}"
    infinite = isinstance(value, float) and not math.isfinite(value)
    return "must be a finite number" if infinite else ""


def _wrong_for_all(union: Any, value: object) -> str:
    """What is wrong with a value that may be one of several things; a limit tells more."""
    found = {kind(part): _wrong(part, value) for part in get_args(union)}
    near = [text for name, text in found.items() if text != f"must be {name}"]
    near.sort(key=bool)  # nothing wrong, if that is among them
    return near[0] if near else f"must be {kind(union)}"


def _fits(hint: Any, value: object) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) in (tuple, dict):
        return False
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool)
    return isinstance(value, hint)


def _limits(limits: tuple[object, ...], value: Any) -> Iterator[str]:
    for limit in limits:
        match limit:
            case Ge(ge=bound) if not value >= bound:
                yield f"must be at least {bound}"
            case Gt(gt=bound) if not value > bound:
                yield f"must be greater than {bound}"
            case Le(le=bound) if not value <= bound:
                yield f"must be at most {bound}"
            case Lt(lt=bound) if not value < bound:
                yield f"must be below {bound}"
            case MinLen(min_length=length) if len(value) < length:
                yield "must not be empty"


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 60 else f"{text[:57]}..."
