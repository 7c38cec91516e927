"""One job of NVIDIA FLARE, whose controller calls back."""

from __future__ import annotations

import time
from collections.abc import Set
from pathlib import Path

from .attempt import Attempt, listening
from .nvflare_job import write_job
from .nvflare_session import Engine

_GATHER = 20.0
"""Seconds that sites which are wanted are given to come before a job begins."""

_CALL = 30.0
"""Seconds until the controller of a job that was submitted calls."""


def submitted(
    engine: Engine,
    name: str,
    place: Path,
    path: Path,
    sites: Set[str],
    wanted: Set[str],
    poll: float,
    end: float,
) -> Attempt:
    """A new job; those of this name that still run are ended first.

    Args:
        engine: a session.
        name: of the job.
        place: folder that the job is written to.
        path: of the socket, which no other job is told.
        sites: that may take part.
        wanted: those to wait for, for a while.
        poll: ``write_job``.
        end: on the monotonic clock; nothing is begun after it.

    Raises:
        OSError: if the server, or every site, is away, or the job did not call.
        RuntimeError: if FLARE refuses.
    """
    with listening(path) as listener:
        here = _gathered(engine, sites, wanted, end)
        engine.abort_all(name)
        job = engine.submit(write_job(place, name, sorted(here), str(path), poll))
        listener.settimeout(_CALL)
        try:
            link, _ = listener.accept()
            return Attempt(job, link)
        except OSError:
            engine.abort(job)
            raise


def _gathered(engine: Engine, sites: Set[str], wanted: Set[str], end: float) -> Set[str]:
    """Sites that are connected; a little patience with those that are wanted."""
    until = min(end, time.monotonic() + _GATHER)
    while not wanted <= (here := engine.last_heard().keys()) and time.monotonic() < until:
        time.sleep(0.5)
    if not here & wanted:
        raise OSError("no site of this round is connected")
    return here & sites
