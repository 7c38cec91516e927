"""Declared sizes: how many records a client says that it has. They are public.

A client that declares nothing has its number rounded down to two digits, once. Sampling rates,
denominators and weights come from declared sizes, so that no true one has an effect that is seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import floor, log10


def declared_sizes(
    field: str, declared: int | Mapping[str, int] | None, records: Mapping[str, int]
) -> tuple[dict[str, int], list[str]]:
    """The public number of records of each client, and notices.

    Args:
        field: its name, for messages.
        declared: one number for all, or one for each; None for neither.
        records: real sizes; they go no further than this function.

    Raises:
        ValueError: if a client is declared that does not exist, or one that exists is not.
    """
    if declared is None:
        sizes = {name: _two_digits(n) for name, n in records.items()}
        listed = ", ".join(f"{name}: {n}" for name, n in sizes.items())
        return sizes, [f"{field}: declared as public, rounded down from the data once: {listed}"]
    if isinstance(declared, int):
        return dict.fromkeys(records, declared), []
    if differ := declared.keys() ^ records.keys():
        raise ValueError(
            f"{field}: names {', '.join(sorted(differ))} differently from the data, whose silos "
            f"are {', '.join(records)}"
        )
    return dict(declared), []


def _two_digits(n: int) -> int:
    step = int(10 ** max(0, floor(log10(n)) - 1))
    return n // step * step
