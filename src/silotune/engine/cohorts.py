"""Which clients a round asks, where it does not ask all: drawn in public, from the run's seed.

Anybody can draw it again, so it hides nobody and no privacy guarantee counts on it. A client pays
for the rounds in which it trains.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch

from silotune.core import generator

SIDES = 2**62
"""Of the die that decides about a client; a whole number falls alike on every machine."""


@dataclass(frozen=True, kw_only=True)
class Cohorts:
    """Whom rounds ask: all, so many, or each with a chance. At most one field but ``least`` is set.

    Attributes:
        number: each round asks so many, every client as likely as any other.
        rate: each round asks every client with this chance, whoever else is asked.
        least: a round whose draw by chance is of fewer asks nobody, and leaves the model as it is.
    """

    number: int | None = None
    rate: float | None = None
    least: int = 1

    @property
    def of_all(self) -> bool:
        """Whether every round asks all."""
        return self.number is None and self.rate is None

    def expected(self, clients: int) -> float:
        """How many of so many clients a round asks on average, if it asks anybody."""
        if self.rate is not None:
            return max(self.rate * clients, float(self.least))
        return float(clients if self.number is None else self.number)

    def drawn(self, clients: int, seed: int, round: int) -> tuple[int, ...]:
        """Those that a round asks, by number, in order.

        Args:
            clients: how many there are.
            seed: of the run.
            round: counts from 0.
        """
        if self.of_all:
            return tuple(range(clients))
        coins = generator(seed, "cohort", round)
        if self.rate is None:
            order = torch.randperm(clients, generator=coins)
            return tuple(sorted(order[: self.number].tolist()))
        sides = torch.randint(SIDES, (clients,), generator=coins)
        asked = (sides < int(self.rate * SIDES)).nonzero().flatten().tolist()
        return tuple(asked) if len(asked) >= self.least else ()

    def most_asked(self, clients: int, seed: int, rounds: int) -> int:
        """The largest number of rounds of a run in which one client is asked."""
        if self.of_all:
            return rounds
        times = Counter(i for r in range(rounds) for i in self.drawn(clients, seed, r))
        return max(times.values(), default=0)
