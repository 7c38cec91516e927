"""Which methods there are: every file of this package is asked, and users may register their own.

Nothing is imported here by a name that comes from outside. Of a method that is somebody's own, the
code is imported by whoever wants it: a program, by its own ``import``; the command line, because
the user's own configuration file names it (``silotune.config.own_method``), never a message.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from inspect import getdoc, isabstract, isclass
from typing import TypeGuard, TypeVar

from .base import Kind, Method
from .options import options, own_options, rule_options

M = TypeVar("M", bound=type[Method])

_OWN: dict[str, type[Method]] = {}


@cache
def built_in() -> Mapping[str, type[Method]]:
    """Name -> class of every method of ours, by kind, and then by the age of its paper."""
    order = list(Kind)
    found = sorted(_found(), key=lambda m: (order.index(m.kind), m.paper, m.name))
    return {method.name: method for method in found}


def known() -> Mapping[str, type[Method]]:
    """Name -> class of every method of ours and every one that was registered."""
    return {**built_in(), **_OWN}


def register(method: M) -> M:
    """Make a method of your own known by its name; a decorator, or a call.

    Args:
        method: a frozen dataclass that inherits from ``Method``.

    Raises:
        ValueError: if something is missing, or the name is another method's.
    """
    check_method(method)
    other = known().get(method.name)
    if other is not None and _path(other) != _path(method):
        raise ValueError(f"{method.__name__}: there is a method {method.name} already, {other!r}")
    _OWN[method.name] = method
    return method


def register_as(path: str, method: type[Method]) -> None:
    """Make a method known by the path that a configuration names it by, ``module:Class``.

    Raises:
        ValueError: if something is missing.
    """
    check_method(method)
    _OWN[path] = method


def check_method(method: object) -> None:
    """Refuse what is no method's class, or lacks something that a method has.

    Raises:
        ValueError: naming what is missing.
    """
    if not (isclass(method) and issubclass(method, Method)):
        raise ValueError(f"{method!r} is no class that inherits from silotune.methods.Method")
    name = method.__name__
    if isabstract(method):
        raise ValueError(f"{name} lacks {', '.join(sorted(method.__abstractmethods__))}; define it")
    told = ("name", "title", "sentence")
    if missing := [each for each in told if not getattr(method, each, "")]:
        raise ValueError(f"{name} lacks {', '.join(missing)}; set it in the class, as text")
    if (
        "__dataclass_params__" not in vars(method)
        or not vars(method)["__dataclass_params__"].frozen
    ):
        raise ValueError(f"{name} is no dataclass; write @dataclass(frozen=True, kw_only=True)")
    if not (getdoc(method) or "").strip():
        raise ValueError(f"{name} lacks a docstring; say in its first line what it is")
    try:
        options(method)
    except TypeError as error:
        raise ValueError(str(error)) from error


def find(name: str) -> type[Method]:
    """The class of a method.

    Raises:
        ValueError: if there is none of that name.
    """
    methods = known()
    if name in methods:
        return methods[name]
    near = get_close_matches(name, methods, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(methods)}"
    raise ValueError(f"there is no method {name}; {hint}")


def lenders() -> Mapping[str, type[Method]]:
    """Those in whose way others may be combined."""
    return {name: method for name, method in known().items() if method.lends_rule}


def takers(option: str) -> tuple[str, ...]:
    """The names of the methods that take an option."""
    return tuple(name for name, method in known().items() if option in own_options(method))


def rule_option_names() -> frozenset[str]:
    """Options that decide how the server combines, and nothing else."""
    return frozenset(name for method in known().values() for name in rule_options(method))


def _found() -> Iterator[type[Method]]:
    package = __name__.rpartition(".")[0]
    for file in pkgutil.iter_modules(importlib.import_module(package).__path__):
        module = importlib.import_module(f"{package}.{file.name}")
        for thing in vars(module).values():
            if isclass(thing) and thing.__module__ == module.__name__ and _concrete(thing):
                yield thing


def _concrete(thing: type) -> TypeGuard[type[Method]]:
    return issubclass(thing, Method) and not isabstract(thing)


def _path(method: type[Method]) -> str:
    return f"{method.__module__}:{method.__qualname__}"
