"""Fields: whether an object has all that it must have, and nothing that nobody looks at."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any


def strange(values: Mapping[str, Any], known: Collection[str]) -> Iterator[str]:
    """What is wrong with the names of an object's fields, a sentence's end each.

    Args:
        values: the object.
        known: its fields, no more and no less.
    """
    if lacking := sorted(set(known) - values.keys()):
        yield f"lacks {', '.join(lacking)}"
    yield from beyond(values, known)


def beyond(values: Mapping[str, Any], known: Collection[str]) -> Iterator[str]:
    """The same, where fields may be absent."""
    if found := sorted(map(str, values.keys() - set(known))):
        yield f"has {', '.join(found)}, which is no field of it"
