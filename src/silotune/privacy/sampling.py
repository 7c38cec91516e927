"""Which records a step sees: secret Poisson coins under privacy, reshuffled epochs without it.

Accounting for subsampled mechanisms holds for *independent* coins of probability q per record
that nobody else knows. Shuffling into batches of fixed size is not that: its epsilon can be ten
times larger (Chua et al. 2024, arXiv 2403.17673). So coins come from the operating system, one
64-bit integer a record, compared exactly; they are never stored, seeded or sent.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor


def poisson(n_records: int, q: float) -> Tensor:
    """Indices of a Poisson sample, ascending, int64; possibly none.

    A record enters if its 64-bit integer is below ``floor(q 2^64)``, so its chance falls short of
    q by less than 2^-64 and never exceeds it.

    Args:
        n_records: how many records the silo holds.
        q: the chance of each, in (0, 1]; 1 takes all.

    Raises:
        ValueError: if q is out of range.
    """
    if not 0.0 < q <= 1.0:
        raise ValueError(f"train.batch_size: the sampling rate must be in (0, 1], not {q}")
    if q == 1.0:
        return torch.arange(n_records)
    coins = np.frombuffer(os.urandom(8 * n_records), dtype=np.uint64)
    threshold = np.uint64(int(Fraction(q) * 2**64))
    return torch.from_numpy(np.flatnonzero(coins < threshold))


def epochs(
    n_records: int, batch_size: int, steps: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Batches for training without privacy: ``steps`` index tensors of equal size, int64.

    Every epoch is a fresh permutation cut into whole batches, so no record comes twice in an
    epoch; the records left over at its end sit out until the next shuffle. A batch size beyond
    ``n_records`` takes all records.

    Args:
        n_records: at least one.
        batch_size: at least one.
        steps: batches in all.
        generator: decides the order.

    Raises:
        ValueError: if there is nothing to draw from.
    """
    if n_records < 1 or batch_size < 1:
        raise ValueError(f"cannot draw batches of {batch_size} from {n_records} records")
    size = min(batch_size, n_records)
    for step in range(steps):
        place = step % (n_records // size)
        if place == 0:
            order = torch.randperm(n_records, generator=generator)
        yield order[place * size : (place + 1) * size]
