"""Crowds: clients of a simulation train in this process, many of them in one pass."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from silotune.core import ClientId, ClientTask, ClientUpdate
from silotune.engine import Client, LocalTrainer, crowd_round, score_at_home


@dataclass(frozen=True, eq=False)
class Crowds:
    """As ``InProcess``, to rounding, and faster where clients have few records.

    Attributes:
        trainer: whose adapter is ``crowdable``.
        silos: all clients.
        at_once: how many train together.
    """

    trainer: LocalTrainer
    silos: Mapping[ClientId, Client]
    at_once: int

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
