"""What a runtime is: it carries tasks to clients and results back, and knows no method."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from silotune.core import ClientId, ClientTask, ClientUpdate


class Runtime(Protocol):
    """Where clients run.

    Delivery is at least once: a result may come twice, late, torn or not at all; the loop sorts
    that out. Which runtime carries a run must not change its result.
    """

    def clients(self) -> Sequence[ClientId]:
        """Who can be asked, in a fixed order."""
        ...

    def train(self, tasks: Sequence[ClientTask]) -> Iterator[ClientUpdate]:
        """Results in any order; ends when no more can come in time."""
        ...

    def evaluate(self, tasks: Sequence[ClientTask]) -> Sequence[ClientUpdate]:
        """Let each silo score the tasks' factors on its own held-out records, at home.

        Results hold a noisy score where silos release one, and nothing else.
        """
        ...
