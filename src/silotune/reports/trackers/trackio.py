"""Trackio: a run of the local project ``silotune`` (``trackio show --project silotune``)."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any

import trackio

from .base import Tracked, Tracker

PROJECT = "silotune"


class Trackio(Tracker):
    """Goes on in the run of the same name. Without a space nothing leaves the machine."""

    def __init__(self, tracked: Tracked) -> None:
        self._api: Any = trackio
        with redirect_stdout(sys.stderr):  # stdout may belong to a script
            self._run = self._api.init(
                project=PROJECT,
                name=tracked.run,
                config=dict(tracked.parameters),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """One line of history."""
        self._run.log(dict(numbers), step=step)

    def close(self, *, done: bool) -> None:
        """Write all that is left; Trackio has no word for how a run ended."""
        with redirect_stdout(sys.stderr):
            self._api.finish()


TRACKER = Trackio
