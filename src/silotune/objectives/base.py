"""What a task is: one loss for every example, and metrics that add up."""

from typing import Protocol

from torch import Tensor, nn

from silotune.core import Batch, Meters


class Objective(Protocol):
    """Losses and metrics of one kind of problem."""

    @property
    def metric(self) -> str:
        """Name of the meter to look at first."""
        ...

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """(n,) losses, each a function of its own example only."""
        ...

    def measure(self, model: nn.Module, batch: Batch) -> Meters:
        """Metrics of a batch."""
        ...
