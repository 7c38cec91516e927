"""Orders of one exchange in Ray's object store: what many of them end with is put there once.

Orders of a round differ in whom they are for and end alike, with the state that all begin from. An
order is its own first bytes, and how many of the last ones of an order that is there already.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

PART = 1 << 20
"""Bytes that are compared at once."""

KEPT = 8
"""Orders that others may end like: clients of one rank begin from the same state."""

SMALL = 100_000
"""Bytes of an order that travels whole: Ray hands those on without its store."""


class Parts(NamedTuple):
    """An order as an actor gets it.

    Attributes:
        own: its first bytes.
        shared: reference to an order, an array of bytes; None where there is nothing of another.
        size: how many of the last bytes of that one follow.
    """

    own: bytes
    shared: Any
    size: int


class Shelf:
    """What was put for one exchange, the last of it; it is gone with this object.

    Args:
        put: takes an array of bytes, and gives a reference to it.
    """

    def __init__(self, put: Callable[[Any], Any]) -> None:
        self._put = put
        self._there: list[tuple[Bytes, Any]] = []

    def parts(self, order: bytes) -> Parts:
        """An order, of which nothing is put that is there."""
        if len(order) <= SMALL:
            return Parts(order, None, 0)
        whole = np.frombuffer(order, np.uint8)
        for other, reference in self._there:
            size = common_end(whole, other)
            if len(order) - size <= SMALL:
                return Parts(order[: len(order) - size], reference, size)
        reference = self._put(whole)
        self._there = [*self._there, (whole, reference)][-KEPT:]
        return Parts(b"", reference, len(order))


def common_end(one: Bytes, other: Bytes) -> int:
    """How many last bytes are the same."""
    most = min(len(one), len(other))
    one, other = one[len(one) - most :], other[len(other) - most :]
    for end in range(most, 0, -PART):
        start = max(0, end - PART)
        differ = np.flatnonzero(one[start:end] != other[start:end])
        if differ.size:
            return most - start - int(differ[-1]) - 1
    return most
