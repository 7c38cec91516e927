"""A job of NVIDIA FLARE that brings no code: three JSON files that name two installed classes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

SERVER_CLASS = "silotune_link.flare_server.CourierController"
SITE_CLASS = "silotune_link.flare_site.SiteExecutor"
TASKS = ("order", "more", "take")

_GONE = 10
"""Seconds until FLARE reports a site's dead process."""

_STALLED = 10.0
"""Seconds in which nothing of a message moves, until a site begins it anew; FLARE's own are 5, in
which a busy machine does not always begin a large one. Fewer than a site may be silent."""


def write_job(place: Path, name: str, sites: Sequence[str], socket_path: str, poll: float) -> Path:
    """A job in its folder, which is made anew.

    Args:
        place: of the folder.
        name: of the job.
        sites: that run it; one that is not there does not hold the others up.
        socket_path: where the coordinator listens on the server's machine.
        poll: seconds between two questions of a site for work.
    """
    shutil.rmtree(place, ignore_errors=True)
    meta = {
        "name": name,
        "resource_spec": {},
        "min_clients": 1,
        "deploy_map": {"app": ["server", *sites]},
    }
    server = {
        "format_version": 2,
        "server": {"task_request_interval": poll},
        "dead_client_grace_period": _GONE,
        "workflows": [
            {"id": "courier", "path": SERVER_CLASS, "args": {"socket_path": socket_path}}
        ],
    }
    site = {
        "format_version": 2,
        "default_task_fetch_interval": poll,
        "get_task_timeout": _STALLED,
        "submit_task_result_timeout": _STALLED,
        "executors": [{"tasks": list(TASKS), "executor": {"path": SITE_CLASS, "args": {}}}],
    }
    config = place / "app" / "config"
    config.mkdir(parents=True)
    for file, content in (
        (place / "meta.json", meta),
        (config / "config_fed_server.json", server),
        (config / "config_fed_client.json", site),
    ):
        file.write_text(json.dumps(content, indent=1))
    return place
