"""Trackers: places where somebody watches the numbers of rounds, by libraries of others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from silotune.runs.folder import RunFolder

Parameter = str | int | float


class Tracker(Protocol):
    """One run at one tracker."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add the numbers of a step; they are finite."""
        ...

    def close(self, *, done: bool) -> None:
        """Write all that is left, and say whether the run came to its end."""
        ...


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """A run, as a tracker is told of it. No record, path or silo is in it.

    Attributes:
        run: its identity, which stays the same when it is resumed.
        folder: of its results, for trackers that keep files.
        parameters: how it trains, by name.
        first: the step of this process that comes first; more than 0 when it is resumed.
    """

    run: str
    folder: RunFolder
    parameters: Mapping[str, Parameter]
    first: int


Open = Callable[[Tracked], Tracker]
"""Begins a run at a tracker, or goes on in it."""
