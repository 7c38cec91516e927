"""Whether an object has the members of a protocol; if not, which one is missing, in words."""

from __future__ import annotations

from inspect import isclass
from typing import Protocol


def check_satisfies(value: object, protocol: type, field: str) -> None:
    """Refuse an object that a protocol's users would stumble over later.

    Args:
        value: what somebody gave.
        protocol: a class of ``typing.Protocol``.
        field: what it was given as, for the message.

    Raises:
        ValueError: naming the field and every member that is missing.
    """
    if isclass(value):
        raise ValueError(f"{field}: give an object, {value.__name__}(...), not the class itself")
    missing = [name for name in members(protocol) if not hasattr(value, name)]
    if missing:
        raise ValueError(
            f"{field}: {type(value).__name__} lacks {', '.join(missing)}; define what is missing, "
            f"or inherit from {protocol.__name__}, which has safe defaults for most"
        )


def members(protocol: type) -> tuple[str, ...]:
    """The public names that a protocol asks for, in the order of its source."""
    levels = [
        c for c in protocol.__mro__ if getattr(c, "_is_protocol", False) and c is not Protocol
    ]
    names = (name for level in levels for name in (*level.__annotations__, *vars(level)))
    return tuple(dict.fromkeys(name for name in names if not name.startswith("_")))
