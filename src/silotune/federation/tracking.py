"""Tracking: a run's trackers are told of its rounds, as far as these may be known outside.

A tracker is for convenience: one that fails is left alone, with a word, and the run goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from silotune.reports.trackers import LOCAL, Open, Parameter, Tracked, Tracker, find_tracker
from silotune.reports.trackers.numbers import everything, public
from silotune.reports.usage import public_name
from silotune.runs.facts import Summary
from silotune.runs.folder import RoundRecord

_LOG = logging.getLogger(__name__)


def parameters(summary: Summary) -> dict[str, Parameter]:
    """How a run trains, as anybody may know it: no path, and no silo."""
    told = {
        "base_model": public_name(summary.base_model),
        "task": summary.task,
        "method": summary.method,
        "r": summary.rank,
        "lora_alpha": summary.lora_alpha,
        "target_modules": summary.target_modules,
        "num_rounds": summary.num_rounds,
        "local_steps": summary.local_steps,
        "local_epochs": summary.local_epochs,
        "batch_size": summary.batch_size,
        "optimizer": summary.optimizer,
        "evaluation": summary.evaluation,
    }
    return {name: value for name, value in told.items() if isinstance(value, str | int | float)}


class Trackers:
    """Those of one process of a run.

    Args:
        begin: by name, how the run is begun at each, or gone on with.
        tracked: of the run.
        cost: what epsilon is called.
    """

    def __init__(self, begin: Mapping[str, Open], tracked: Tracked, cost: str) -> None:
        self._cost, self._trackers = cost, dict[str, Tracker]()
        for name, opened in begin.items():
            with self._forgiven(name):
                self._trackers[name] = opened(tracked)

    def tell(self, record: RoundRecord) -> None:
        """Tell all of a round; steps count completed ones, so that 0 is the state before."""
        for name, tracker in [*self._trackers.items()]:
            numbers = everything if name in LOCAL else public
            with self._forgiven(name):
                tracker.log(record.round + 1, numbers(record, self._cost))

    def close(self, *, done: bool) -> None:
        """Let all write what is left, and say whether the run came to its end."""
        for name, tracker in [*self._trackers.items()]:
            with self._forgiven(name):
                tracker.close(done=done)

    @contextmanager
    def _forgiven(self, name: str) -> Iterator[None]:
        """A tracker that fails is told nothing any more."""
        try:
            yield
        except Exception as error:  # of a library of others, which may raise anything
            self._trackers.pop(name, None)
            _LOG.warning(
                "report_to: %s failed (%s: %s) and is told nothing more; the run goes on",
                name,
                type(error).__name__,
                " ".join(str(error).split())[:200],
            )


@contextmanager
def tracking(names: Sequence[str], tracked: Tracked, cost: str) -> Iterator[Trackers]:
    """Trackers for the rounds of this process.

    Args:
        names: of trackers.
        tracked: of the run.
        cost: what epsilon is called.

    Raises:
        ValueError: if one of them is not installed.
    """
    trackers, done = Trackers({name: find_tracker(name) for name in names}, tracked, cost), False
    try:
        yield trackers
        done = True
    finally:
        trackers.close(done=done)
