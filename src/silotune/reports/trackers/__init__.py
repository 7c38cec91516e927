"""Trackers: where somebody watches a run, a file each. They need extras, and are imported late."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Literal

from .base import Open as Open
from .base import Parameter as Parameter
from .base import Tracked as Tracked
from .base import Tracker as Tracker

TRACKERS = ("tensorboard", "mlflow", "wandb", "trackio")
"""Of each a module here, and an extra of its name."""

LOCAL = ("tensorboard",)
"""Those that keep all in the folder of the run, and send nothing."""

if TYPE_CHECKING:
    TrackerName = str
else:
    TrackerName = Literal[TRACKERS]
"""The type of a name, for whoever checks values by types."""


def find_tracker(name: str) -> Open:
    """How a run is begun at a tracker.

    Raises:
        ValueError: if its library is not installed.
    """
    try:
        opened: Open = import_module(f"{__name__}.{name}").TRACKER
    except ImportError as error:
        raise ValueError(
            f"report_to: {name} is not installed; pip install 'silotune[{name}]'"
        ) from error
    return opened
