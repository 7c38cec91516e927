"""Which clients a round asks, where it does not ask all: drawn in public, from the run's seed.

Anybody can draw it again, so it hides nobody and no privacy guarantee counts on it. A client pays
for the rounds in which it trains.
"""

from __future__ import annotations

from collections import Counter

import torch

from silotune.core import generator


def drawn(clients: int, asked: int, seed: int, round: int) -> tuple[int, ...]:
    """So many of the clients, by number, each as likely as any other; in order.

    Args:
        clients: how many there are.
        asked: how many of them take part.
        seed: of the run.
        round: counts from 0.
    """
    order = torch.randperm(clients, generator=generator(seed, "cohort", round))
    return tuple(sorted(order[:asked].tolist()))


def most_asked(clients: int, asked: int, seed: int, rounds: int) -> int:
    """The largest number of rounds of a run in which one client is asked."""
    times = Counter(i for round in range(rounds) for i in drawn(clients, asked, seed, round))
    return max(times.values())
