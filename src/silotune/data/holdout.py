"""Holding out: which of a silo's records are kept for scoring.

In a simulation it is a random share, exact to a record. Where every silo scores at home, a record
has a coin of its own, made of its content: with or without it, all others stay where they are. So
one record is in one of two tables and moves nothing else, which is what epsilon speaks of.
"""

from __future__ import annotations

from hashlib import sha256

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from silotune.core import seed_of

from .columns import slices

Mask = NDArray[np.bool_]


def random_share(records: int, fraction: float, seed: int, silo: str) -> Mask:
    """A share of the rows, but one at least: (records,)."""
    order = np.random.default_rng(seed_of(seed, "hold out", silo)).permutation(records)
    held = np.zeros(records, dtype=np.bool_)
    held[order[: max(1, round(fraction * records))]] = True
    return held


def own_coins(table: Dataset, fraction: float, seed: int, silo: str) -> Mask:
    """Every row by the coin of its content, which falls on "held" with chance ``fraction``.

    Equal records have equal coins, so none is in both parts.
    """
    held: list[bool] = []
    for _, columns in slices(table):
        parts = [cells for part, cells in columns.items() if part != "person"]
        for cells in zip(*parts, strict=True):
            content = sha256(repr(cells).encode()).hexdigest()
            held.append(seed_of(seed, "hold out", silo, content) < fraction * 2**63)
    return np.array(held, dtype=np.bool_)
