"""MLflow: a run of the experiment ``silotune``, at MLFLOW_TRACKING_URI or where MLflow keeps it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from .base import Tracked, Tracker

EXPERIMENT, TAG = "silotune", "silotune.run"


class MLflow(Tracker):
    """Found again by a tag, which has the identity of the run."""

    def __init__(self, tracked: Tracked) -> None:
        self._client: Any = MlflowClient()
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        place = (
            experiment.experiment_id if experiment else self._client.create_experiment(EXPERIMENT)
        )
        found = self._client.search_runs([place], f"tags.`{TAG}` = '{tracked.run}'")
        if found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            return
        self._run = self._client.create_run(place, run_name=tracked.run).info.run_id
        self._client.log_batch(
            self._run,
            params=[Param(name, str(value)) for name, value in tracked.parameters.items()],
            tags=[RunTag(TAG, tracked.run)],
        )

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """All numbers of a step in one request."""
        now = int(time.time() * 1000)
        metrics = [Metric(name, number, now, step) for name, number in numbers.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def close(self, *, done: bool) -> None:
        """Set the run's status."""
        self._client.set_terminated(self._run, "FINISHED" if done else "KILLED")


TRACKER = MLflow
