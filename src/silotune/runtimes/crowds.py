"""Crowds: clients of a simulation train in this process, many of them in one pass."""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from silotune.core import ClientId, ClientTask, ClientUpdate
from silotune.engine import Client, LocalTrainer, crowd_round, score_at_home

FILES = 100
"""That a process has open besides, at most: libraries, the run's own, what threads write."""


@dataclass(frozen=True, eq=False)
class Crowds:
    """As ``InProcess``, to rounding, and faster where clients have few records.

    Attributes:
        trainer: whose adapter is ``crowdable``.
        silos: all clients.
        at_once: how many train together.

    Raises:
        ValueError: if they would have more files open than a process may: whose records are hidden
            holds its ledger's lock from its order to its answer.
    """

    trainer: LocalTrainer
    silos: Mapping[ClientId, Client]
    at_once: int

    def __post_init__(self) -> None:
        together = min(self.at_once, sum(silo.privacy.private for silo in self.silos.values()))
        most = _open_files()
        if together > most - FILES:
            raise ValueError(
                f"crowd: {together} silos that train together have a file open each, and this "
                f"process may have {most}; set it to {max(most - FILES, 1)} or less, or raise the "
                "limit (ulimit -n)"
            )

    def clients(self) -> Sequence[ClientId]:
        """All silos, by name."""
        return sorted(self.silos)

    def train(self, tasks: Sequence[ClientTask]) -> Iterator[ClientUpdate]:
        """One crowd after the other, in the order of the tasks."""
        for first in range(0, len(tasks), self.at_once):
            yield from crowd_round(tasks[first : first + self.at_once], self.trainer, self.silos)

    def evaluate(self, tasks: Sequence[ClientTask]) -> Sequence[ClientUpdate]:
        """Each silo scores and keeps its own scores."""
        return [score_at_home(task, self.trainer, self.silos[task.client]) for task in tasks]


def _open_files() -> float:
    """How many files this process may have open; infinite where the system has no such limit."""
    if sys.platform == "win32":
        return math.inf
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if soft == resource.RLIM_INFINITY else soft
