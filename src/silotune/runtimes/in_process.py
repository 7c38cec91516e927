"""InProcess: clients take turns in this process, on one frozen base model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from silotune.core import ClientId, Result, Task
from silotune.engine import Bench, Silo, client_round, score_at_home


@dataclass(frozen=True, eq=False)
class InProcess:
    """The simplest runtime, and the reference for all others."""

    bench: Bench
    silos: Mapping[ClientId, Silo]

    def clients(self) -> Sequence[ClientId]:
        """All silos, by name."""
        return sorted(self.silos)

    def train(self, tasks: Sequence[Task]) -> Iterator[Result]:
        """One after the other."""
        return (client_round(task, self.bench, self.silos[task.client]) for task in tasks)

    def evaluate(self, tasks: Sequence[Task]) -> Sequence[Result]:
        """Each silo scores and keeps its own scores."""
        return [score_at_home(task, self.bench, self.silos[task.client]) for task in tasks]
