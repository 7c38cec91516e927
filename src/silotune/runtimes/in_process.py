"""InProcess: clients take turns in this process, on one frozen base model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from silotune.core import ClientId, ClientTask, ClientUpdate
from silotune.engine import Client, LocalTrainer, client_round, score_at_home


@dataclass(frozen=True, eq=False)
class InProcess:
    """The simplest runtime, and the reference for all others."""

    trainer: LocalTrainer
    silos: Mapping[ClientId, Client]

    def clients(self) -> Sequence[ClientId]:
        """All silos, by name."""
        return sorted(self.silos)

    def train(self, tasks: Sequence[ClientTask]) -> Iterator[ClientUpdate]:
        """One after the other."""
        return (client_round(task, self.trainer, self.silos[task.client]) for task in tasks)

    def evaluate(self, tasks: Sequence[ClientTask]) -> Sequence[ClientUpdate]:
        """Each silo scores and keeps its own scores."""
        return [score_at_home(task, self.trainer, self.silos[task.client]) for task in tasks]
