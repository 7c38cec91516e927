"""What declared sizes allow: the largest delta, the largest batch. Sizes are public."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping


def check_delta(target_delta: float, sizes: int | Mapping[str, int]) -> None:
    """Refuse a delta that lets a whole record leak: it must be below 1/n at every client.

    Args:
        target_delta: delta of the guarantee.
        sizes: the declared number of records, of every client or by client.

    Raises:
        ValueError: if delta >= 1/n for some client.
    """
    whose, n = _chosen(max, sizes)
    if not target_delta < 1 / n:
        raise ValueError(
            f"target_delta: must be below 1 / num_examples = {1 / n:.2g}{whose}, not "
            f"{target_delta:g}; usual is {_usual_delta(n):.0e}"
        )


def check_batch_size(batch_size: int, sizes: int | Mapping[str, int]) -> None:
    """Refuse a batch larger than a client's records.

    Args:
        batch_size: records that a step expects.
        sizes: the declared number of records, of every client or by client.

    Raises:
        ValueError: if some client has fewer records than that.
    """
    whose, n = _chosen(min, sizes)
    if batch_size > n:
        leave = " or leave that silo out" if whose else ""
        raise ValueError(
            f"batch_size: must be at most num_examples = {n}{whose}, not {batch_size}; lower it"
            f"{leave}"
        )


def check_max_batch_size(max_batch_size: int | None, batch_size: int) -> None:
    """See that a truncated batch has room for the usual one.

    Raises:
        ValueError: if it has not.
    """
    if max_batch_size is not None and max_batch_size < batch_size:
        raise ValueError(
            f"max_batch_size: must be at least batch_size = {batch_size}; 3 to 4 times as much "
            "costs nothing"
        )


def _chosen(
    choose: Callable[[Iterable[int]], int], sizes: int | Mapping[str, int]
) -> tuple[str, int]:
    """The largest or smallest size, and the words that say whose it is."""
    if isinstance(sizes, int):
        return "", sizes
    n = choose(sizes.values())
    if len(sizes) == 1:
        return "", n
    return f" of silo {next(name for name, size in sizes.items() if size == n)}", n


def _usual_delta(n: int) -> float:
    """n^-1.1, rounded down to one digit, and below 1/n whatever n is."""
    value = n**-1.1 if n > 1 else 0.5
    unit = 10.0 ** math.floor(math.log10(value))
    return math.floor(value / unit) * unit
