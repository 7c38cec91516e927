"""Own coins: a record's content decides whether it is used, and whether it is held out.

With or without one record, all others have the coins that they had. So one record is in one of
two tables and moves nothing else, which is what epsilon speaks of. The coins are no secret: the
seed is public, and they hide nothing.
"""

from __future__ import annotations

from hashlib import sha256

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from .record_digests import record_digests


def own_coins(table: Dataset, seed: int, purpose: str, silo: str) -> NDArray[np.float64]:
    """The coin of every record, as if uniform on [0, 1]: (records,). Equal records, equal coins.

    Args:
        table: a readable table.
        seed: of the run.
        purpose: what the coins are for; others are independent.
        silo: whose the records are.
    """
    start = sha256("\x1f".join([str(seed), purpose, silo, ""]).encode())
    words = bytearray()
    for digest in record_digests(table):
        coin = start.copy()
        coin.update(digest)
        words += coin.digest()[:8]
    return np.frombuffer(bytes(words), dtype=">u8").astype(np.float64) / 2.0**64
