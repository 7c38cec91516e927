"""``worker``: one process of a pool. Tasks come in on stdin, results go out on stdout."""

from __future__ import annotations

import os
from pathlib import Path

from silotune.job.opening import saved_config
from silotune.job.workshop import build_silos, open_workshop
from silotune.reports.record import RunFolder
from silotune.runtimes import serve


def work(path: Path) -> None:
    """Open the run's workshop and answer tasks until the pool is gone."""
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not get between the bytes
    tasks = os.fdopen(os.dup(0), "rb")
    folder = RunFolder(path)
    workshop = open_workshop(saved_config(folder))
    serve(workshop.model.bench, build_silos(workshop, folder), tasks, results)
