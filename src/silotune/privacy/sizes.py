"""Declared sizes: how many records a client says that it has. They are public.

A client that declares nothing has its number rounded down to two digits, once; one record at the
edge of such a step moves it, which certificates say. Below ``FEWEST`` records a step is so narrow
that a declaration is asked for. Sampling rates, denominators and weights come from declared sizes
alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import floor, log10

FEWEST = 200
"""Records from which a number may be taken: one in ten moves it below a thousand, in a hundred
beyond."""

_NAMED = 12
"""Clients that an error names."""


def declared_sizes(
    field: str, declared: int | Mapping[str, int] | None, records: Mapping[str, int]
) -> tuple[dict[str, int], list[str]]:
    """The public number of records of each client, and notices.

    Args:
        field: its name, for messages.
        declared: one number for all, or one for each; None for neither.
        records: real sizes; they go no further than this function.

    Raises:
        ValueError: if a client is declared that does not exist, or one that exists is not; or if
            nothing is declared and a client has fewer than ``FEWEST`` records.
    """
    check_declared(field, declared, records)
    if declared is None:
        if few := [name for name, n in records.items() if n < FEWEST]:
            raise ValueError(
                f"{field}: none is declared, and taken from fewer than {FEWEST} records, as those "
                f"of {_some(few)}, it would tell too much; declare a public one, below the "
                "real one, say: one for all, or one for each by name"
            )
        sizes = {name: _two_digits(n) for name, n in records.items()}
        listed = ", ".join(f"{name}: {n}" for name, n in sizes.items())
        return sizes, [f"{field}: declared as public, rounded down from the data once: {listed}"]
    if isinstance(declared, int):
        return dict.fromkeys(records, declared), []
    return dict(declared), []


def check_declared(field: str, declared: object, clients: Iterable[str] | None = None) -> None:
    """See that declared numbers are numbers, and that they are of these clients.

    Args:
        field: its name, for messages.
        declared: one number for all, or one for each; None for neither.
        clients: all there are; None: not known yet.

    Raises:
        ValueError: if a number is none, a client is declared that does not exist, or one that
            exists is not.
    """
    if declared is None:
        return
    by_client = declared if isinstance(declared, Mapping) else {}
    for number in by_client.values() if by_client else [declared]:
        if type(number) is not int or number < 1:
            raise ValueError(
                f"{field}: give a whole number, at least 1, for all clients or for each by name, "
                f"not {number!r:.40}"
            )
    if by_client and clients is not None and by_client.keys() != set(clients):
        raise ValueError(
            f"{field}: is declared for {_some(by_client)}, but the silos of the data are "
            f"{_some(clients)}; name each of these, or give one number for all"
        )


def _some(names: Iterable[object]) -> str:
    """A few names; all would fill a page."""
    words = list(map(str, names))
    return ", ".join(words[:_NAMED]) + (
        f" and {len(words) - _NAMED} others" if len(words) > _NAMED else ""
    )


def _two_digits(n: int) -> int:
    step = int(10 ** max(0, floor(log10(n)) - 1))
    return n // step * step
