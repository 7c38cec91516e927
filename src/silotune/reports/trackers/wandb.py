"""Weights & Biases: files in the folder of a run, ``wandb``, for ``wandb sync``.

Nothing is sent unless WANDB_MODE is ``online``. What wandb gathers of a machine by itself (its name
and user, code, output, packages, load) is turned off.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import wandb

from .base import Tracked, Tracker

PROJECT, STEP = "silotune", "round"


class WeightsAndBiases(Tracker):
    """Goes on in the run of the same id; rounds are counted by a number of their own."""

    def __init__(self, tracked: Tracked) -> None:
        api: Any = wandb
        self._run = api.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=tracked.run,
            name=tracked.run,
            resume="allow",
            dir=str(tracked.folder.path),
            mode=os.environ.get("WANDB_MODE", "offline"),
            config=dict(tracked.parameters),
            settings=api.Settings(
                console="off",
                host="",
                silent=True,
                disable_git=True,
                disable_code=True,
                save_code=False,
                x_save_requirements=False,
                x_disable_meta=True,
                x_disable_stats=True,
                x_disable_machine_info=True,
            ),
        )
        self._run.define_metric("*", step_metric=STEP)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """One line of history."""
        self._run.log({STEP: step, **numbers})

    def close(self, *, done: bool) -> None:
        """Write all that is left."""
        self._run.finish(exit_code=0 if done else 1)


TRACKER = WeightsAndBiases
