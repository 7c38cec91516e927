"""Options of methods: what a field of a method's dataclass takes, and what it means.

A field says it all: ``every: Annotated[int, Ge(1), About("Rounds between two SVDs.")] = 1``. From
there the checks below, the configuration file's and the pages about both are made.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, get_args, get_type_hints

from annotated_types import Ge, MinLen

from silotune.core.fields import check_value


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
        check_value(name, option.hint, getattr(method, name))
