"""Which records a step sees: secret coins under privacy, reshuffled epochs without it.

Accounting for subsampled mechanisms holds for *independent* coins of probability q per record
that nobody else knows. Shuffling into batches of fixed size is not that: its epsilon can be ten
times larger (Chua et al. 2024, arXiv 2403.17673). So a coin is a secret random 64-bit word per
record and step, compared exactly; coins are never stored, sent or logged.

    Poisson            every record by its own coin, afresh in each step
    TruncatedPoisson   the same, and what exceeds a fixed physical batch is left out at random
    Rotation           every record has one turn in each cycle; claims no amplification at all
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from .base import RoundRandomness
from .secure_rng import Randomness


@dataclass(frozen=True)
class Poisson:
    """A record is in a batch with probability ``rate``, whoever else is.

    Raises:
        ValueError: if the rate is not in (0, 1].
    """

    rate: float

    def __post_init__(self) -> None:
        _check_rate(self.rate)

    def batches(self, records: int, steps: int, draws: RoundRandomness) -> Iterator[Sequence[int]]:
        """One batch a step."""
        for _ in range(steps):
            yield poisson(records, self.rate, draws.coins).tolist()


@dataclass(frozen=True)
class TruncatedPoisson:
    """A Poisson sample of which at most ``largest``, chosen at random, are kept.

    What a step costs in memory and time is then bounded by a public number. As records crowd each
    other out, the neighbouring relation is zero-out: a record is replaced by one that gives
    nothing but keeps its place. Places are as many as the silo declares: those without a record
    are drawn, and crowd, like any other; records without a place sit out.

    Attributes:
        rate: chance of a place to be drawn.
        largest: places kept at most.
        places: the silo's declared number of records.

    Raises:
        ValueError: if a field is out of range.
    """

    rate: float
    largest: int
    places: int

    def __post_init__(self) -> None:
        _check_rate(self.rate)
        if self.largest < 1:
            raise ValueError(f"max_batch_size: must be at least 1, not {self.largest}")
        if self.places < 1:
            raise ValueError(f"num_examples: must be at least 1, not {self.places}")

    def batches(self, records: int, steps: int, draws: RoundRandomness) -> Iterator[Sequence[int]]:
        """One batch a step."""
        for _ in range(steps):
            drawn = poisson(self.places, self.rate, draws.coins)
            order = np.argsort(draws.coins.words(len(drawn)), kind="stable")
            kept = drawn[torch.from_numpy(order[: self.largest])].sort().values
            yield kept[kept < records].tolist()


@dataclass(frozen=True)
class Rotation:
    """Each record draws its turn once in a run; step t takes those whose turn is t mod ``turns``.

    So a record takes part in every ``turns``-th step and in no other. The guarantee needs only
    that, not that the turns are secret; there is no amplification by sampling.

    Raises:
        ValueError: if ``turns`` is below 1.
    """

    turns: int

    def __post_init__(self) -> None:
        if self.turns < 1:
            raise ValueError(f"batch_size: a rotation needs 1 turn or more, not {self.turns}")

    def batches(self, records: int, steps: int, draws: RoundRandomness) -> Iterator[Sequence[int]]:
        """One batch a step, continuing the cycle at ``draws.start``."""
        turn = draws.coins.fork("turns").words(records) % np.uint64(self.turns)
        for step in range(draws.start, draws.start + steps):
            yield np.flatnonzero(turn == step % self.turns).tolist()


Sampling = Poisson | TruncatedPoisson | Rotation


def poisson(n_records: int, q: float, g: Randomness) -> Tensor:
    """Indices of a Poisson sample, ascending, int64; possibly none.

    A record enters if its 64-bit word is below ``floor(q 2^64)``, so its chance falls short of q
    by less than 2^-64 and never exceeds it.

    Args:
        n_records: how many records the silo holds.
        q: the chance of each, in (0, 1]; 1 takes all.
        g: where the coins come from.
    """
    _check_rate(q)
    if q == 1.0:
        return torch.arange(n_records)
    threshold = np.uint64(int(Fraction(q) * 2**64))
    return torch.from_numpy(np.flatnonzero(g.words(n_records) < threshold))


def epochs(n_records: int, batch_size: int, steps: int, g: Randomness) -> Iterator[Tensor]:
    """Batches for training without privacy: ``steps`` index tensors of equal size, int64.

    Every epoch is a fresh permutation cut into whole batches, so no record comes twice in an
    epoch; the records left over at its end sit out until the next shuffle. A batch size beyond
    ``n_records`` takes all records.

    Args:
        n_records: at least one.
        batch_size: at least one.
        steps: batches in all.
        g: decides the order.

    Raises:
        ValueError: if there is nothing to draw from.
    """
    if n_records < 1 or batch_size < 1:
        raise ValueError(f"cannot draw batches of {batch_size} from {n_records} records")
    size = min(batch_size, n_records)
    for step in range(steps):
        place = step % (n_records // size)
        if place == 0:
            order = torch.from_numpy(np.argsort(g.words(n_records), kind="stable"))
        yield order[place * size : (place + 1) * size]


def _check_rate(q: float) -> None:
    if not 0.0 < q <= 1.0:
        raise ValueError(
            f"batch_size: the sampling rate must be in (0, 1], not {q}; the expected batch "
            "cannot be larger than the silo's num_examples"
        )
