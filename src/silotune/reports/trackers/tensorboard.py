"""TensorBoard: event files in the folder of a run, ``tensorboard``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from .base import Tracked, Tracker


class TensorBoard(Tracker):
    """What was written of later steps, by a process that has ended, is hidden."""

    def __init__(self, tracked: Tracked) -> None:
        folder = str(tracked.folder.tensorboard)
        self._writer: Any = SummaryWriter(folder, purge_step=tracked.first)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """A scalar for each number."""
        for name, number in numbers.items():
            self._writer.add_scalar(name, number, step)
        self._writer.flush()

    def close(self, *, done: bool) -> None:
        """Close the files; they do not say whether more will come."""
        self._writer.close()


TRACKER = TensorBoard
