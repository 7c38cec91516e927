"""Options of methods: what a field of a method's dataclass takes, and what it means.

A field says it all: ``every: Annotated[int, Ge(1), About("Rounds between two SVDs.")] = 1``. From
there the checks below, the configuration file's and the pages about both are made.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Lt, MinLen


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """One option of a method.

    Attributes:
        name: of the field, and of the key in a configuration.
        hint: its type, with limits.
        default: without it.
        about: what it means.
    """

    name: str
    hint: Any
    default: object
    about: About


@dataclasses.dataclass(frozen=True)
class About:
    """What an option means, beside its type.

    Attributes:
        text: one or two sentences.
        of_rule: whether it decides how the server combines, and nothing else, so that it may be set
            where another method is combined in this one's way.
        examples: as YAML has them.
    """

    text: str
    of_rule: bool = False
    examples: tuple[str, ...] = ()


FoldEvery = Annotated[
    int,
    Ge(1),
    About("Rounds that a pair lasts, before it is folded into the base and another one drawn."),
]
Damping = Annotated[
    float,
    Ge(0),
    About(
        "Added to the eigenvalues of B^T B and A A^T before gradients are divided by them; about "
        "0.01 under privacy."
    ),
]
BalanceWeight = Annotated[
    float,
    Ge(0),
    About("Weight of the term that makes routers and gates use their experts alike."),
]
Word = Annotated[str, MinLen(1)]


@cache
def options(method: type) -> Mapping[str, Option]:
    """Every option of a method's class, in order: those of all methods first.

    Raises:
        TypeError: if a field has no ``About`` or no default.
    """
    hints = get_type_hints(method, include_extras=True)
    found = {}
    for field in dataclasses.fields(method):
        if not field.metadata.get("option", True):
            continue
        about = next((m for m in get_args(hints[field.name]) if isinstance(m, About)), None)
        if about is None:
            raise TypeError(f"{method.__name__}.{field.name}: say what it means, by About(...)")
        if field.default is dataclasses.MISSING:
            raise TypeError(f"{method.__name__}.{field.name}: give it a default")
        found[field.name] = Option(
            name=field.name, hint=hints[field.name], default=field.default, about=about
        )
    return found


def own_options(method: type) -> Mapping[str, Option]:
    """The options that a class has beside those of all methods."""
    common = common_options(method)
    return {name: option for name, option in options(method).items() if name not in common}


def common_options(method: type) -> Mapping[str, Option]:
    """The options of all methods, with the defaults that they have in most."""
    return options([level for level in method.__mro__ if dataclasses.is_dataclass(level)][-1])


def rule_options(method: type) -> Mapping[str, Option]:
    """The options of a class that decide how the server combines."""
    return {name: o for name, o in own_options(method).items() if o.about.of_rule}


def check_options(method: object) -> None:
    """Refuse values that the options' types and limits do not allow.

    Raises:
        ValueError: naming the field.
    """
    own: type = type(method)
    for name, option in options(own).items():
        value = getattr(method, name)
        if wrong := _wrong(option.hint, value):
            raise ValueError(f"{name}: {wrong}, not {_shown(value)}")


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
        found = [(part, _wrong(part, value)) for part in inner]
        if any(not text for _, text in found):
            return ""
        near = [text for part, text in found if text != f"must be {kind(part)}"]
        return near[0] if near else f"must be {kind(hint)}"
    if origin is tuple and isinstance(value, tuple):
        return next(filter(None, (_wrong(inner[0], item) for item in value)), "")
    if origin is dict and isinstance(value, Mapping):
        parts = [(inner[i], part) for item in value.items() for i, part in enumerate(item)]
        return next(filter(None, (_wrong(*part) for part in parts)), "")
    return "" if _fits(hint, value) else f"must be {kind(hint)}"


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
            case Lt(lt=bound) if not value < bound:
                yield f"must be below {bound}"
            case MinLen(min_length=length) if len(value) < length:
                yield "must not be empty"


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 60 else f"{text[:57]}..."
