"""``worker``: one process of a pool. Tasks come in on stdin, results go out on stdout."""

from __future__ import annotations

import os
from pathlib import Path

from silotune.federation.federation import build_silos, open_federation
from silotune.federation.opening import saved_config
from silotune.runs.folder import RunFolder
from silotune.runtimes import serve

WORKERS_LOG = "workers.log"
"""Beside the silos' folders: what workers of a private run would say on the screen."""


def work(path: Path) -> None:
    """Open the run's workshop and answer tasks until the pool is gone."""
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not get between the bytes
    tasks = os.fdopen(os.dup(0), "rb")
    folder = RunFolder(path)
    workshop = open_federation(saved_config(folder))
    if workshop.private:  # what it says from here on may be of records, and stays with them
        log = os.open(folder.path / "sites" / WORKERS_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 2)
        os.dup2(log, 1)
    serve(workshop.model.bench, build_silos(workshop, folder), tasks, results)
