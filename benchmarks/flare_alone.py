"""NVIDIA FLARE by itself: its example of numpy, ScatterAndGather and NPTrainer, on a larger array.

All of it is FLARE's own code. The trainer adds one to an array and keeps a copy on the disk; the
server takes the mean. Kits are those of `silotune.runtimes.nvflare_loopback`, with TLS on both
sides, but for the classes that they allow.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import numpy as np

from silotune.core import ClientId
from silotune.runtimes.nvflare_kits import LEAD, Kit
from silotune.runtimes.nvflare_loopback import SERVER, Loopback
from silotune.runtimes.nvflare_session import Engine

ROUNDS = 4
_COMMON = "nvflare.app_common."
_WORKFLOW = f"{_COMMON}workflows.scatter_and_gather.ScatterAndGather"
_TRAINER = f"{_COMMON}np.np_trainer.NPTrainer"
_PARTS = {
    "persistor": f"{_COMMON}np.np_model_persistor.NPModelPersistor",
    "shareable_generator": f"{_COMMON}shareablegenerators.full_model_shareable_generator."
    "FullModelShareableGenerator",
    "aggregator": f"{_COMMON}aggregators.intime_accumulate_model_aggregator."
    "InTimeAccumulateWeightedAggregator",
}
_STARTED = re.compile(r"^(\S+ \S+),(\d+) .*Round (\d+) started", re.MULTILINE)


class _Open(Loopback):
    """A federation whose kits allow the classes of the example."""

    def _kits(self) -> dict[str, Kit]:
        return {
            name: kit if name == LEAD else _allowing(kit) for name, kit in super()._kits().items()
        }

    def said(self) -> str:
        """By the server and its jobs."""
        return self._said(SERVER).read_text(errors="replace")


def _allowing(kit: Kit) -> Kit:
    resources = json.loads(kit["local/resources.json"])
    resources["class_allow_list"] += [_WORKFLOW, _TRAINER, *_PARTS.values()]
    return {**kit, "local/resources.json": json.dumps(resources)}


def flare_alone(
    sites: Sequence[ClientId], echo: Sequence[str], sizes: Mapping[str, int], poll: float
) -> dict[str, float]:
    """Seconds of one round of each size, the shortest of those after the first.

    Args:
        sites: that take part.
        echo: starts what would train there, and is not asked.
        sizes: label -> bytes of the array.
        poll: seconds between two questions of a site for work.
    """
    place = Path(tempfile.mkdtemp(prefix="wire-"))  # near the root: a socket's path is short
    try:
        with _Open(place, dict.fromkeys(sites, echo)) as federation:
            engine = Engine(federation.kit)
            took = {}
            for label, size in sizes.items():
                began = len(federation.said())
                array = place / "array.npy"
                np.save(array, np.zeros(size // 4, np.float32))
                engine.submit(_job(place / "job", list(federation.names.values()), array, poll))
                took[label] = _shortest(federation, began)
            engine.close()
            return took
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _shortest(federation: _Open, began: int) -> float:
    end = time.monotonic() + 600
    while len(found := _STARTED.findall(federation.said()[began:])) < ROUNDS:
        if time.monotonic() > end:
            raise RuntimeError("FLARE by itself did not come to an end")
        time.sleep(0.5)
    moments = [
        datetime.strptime(day, "%Y-%m-%d %H:%M:%S").timestamp() + int(part) / 1000
        for day, part, _ in found
    ]
    return min(after - before for before, after in pairwise(moments[1:]))


def _job(place: Path, sites: Sequence[str], array: Path, poll: float) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    parts = {name: {"id": name, "path": path, "args": {}} for name, path in _PARTS.items()}
    parts["persistor"]["args"] = {"source_ckpt_file_full_name": str(array)}
    parts["aggregator"]["args"] = {"expected_data_kind": "WEIGHTS"}
    workflow = {
        "min_clients": len(sites),
        "num_rounds": ROUNDS,
        "wait_time_after_min_received": 0,
        "persistor_id": "persistor",
        "aggregator_id": "aggregator",
        "shareable_generator_id": "shareable_generator",
        "task_check_period": poll,
        "persist_every_n_rounds": 0,
        "snapshot_every_n_rounds": 0,
    }
    config = place / "app" / "config"
    config.mkdir(parents=True)
    told = {
        place / "meta.json": {
            "name": "numpy",
            "resource_spec": {},
            "min_clients": len(sites),
            "deploy_map": {"app": ["server", *sites]},
        },
        config / "config_fed_server.json": {
            "format_version": 2,
            "server": {"task_request_interval": poll},
            "workflows": [{"id": "rounds", "path": _WORKFLOW, "args": workflow}],
            "components": list(parts.values()),
        },
        config / "config_fed_client.json": {
            "format_version": 2,
            "default_task_fetch_interval": poll,
            "executors": [{"tasks": ["train"], "executor": {"path": _TRAINER, "args": {}}}],
        },
    }
    for file, content in told.items():
        file.write_text(json.dumps(content, indent=1))
    return place
