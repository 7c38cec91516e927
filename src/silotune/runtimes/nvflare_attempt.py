"""One job of NVIDIA FLARE, and the socket on which its controller calls back."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
import time
from collections.abc import Iterator, Set
from pathlib import Path
from typing import NamedTuple

from silotune_link.frames import read_message, write_message

from .nvflare_job import write_job
from .nvflare_session import Engine

_GATHER = 20.0
"""Seconds that sites which are wanted are given to come before a job begins."""

_CALL = 30.0
"""Seconds until the controller of a job that was submitted calls."""


class Event(NamedTuple):
    """What a controller says of a site: ``answer``, ``working``, ``silent`` or ``failed``."""

    kind: str
    site: str
    number: int
    body: bytes


class Attempt:
    """A job that runs.

    Attributes:
        job: its identity.
        sites: that are in it.
        silent: when a site was noticed to say nothing (seconds since the epoch).
        began: when the job did (likewise).
        alive: whether its controller is still there.
    """

    def __init__(self, job: str, link: socket.socket) -> None:
        """Takes a controller's call.

        Raises:
            OSError: if it is none.
        """
        self.job, self.began, self.alive = job, time.time(), True
        self.silent: dict[str, float] = {}
        self._link = link
        self._orders, self._answers = link.makefile("wb"), link.makefile("rb")
        try:
            self.sites: Set[str] = self._greeted()
        except BaseException:
            self._answers.close()
            self.close()
            raise
        self._inbox: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _greeted(self) -> Set[str]:
        self._link.settimeout(_CALL)
        try:
            head, _ = read_message(self._answers)
        except EOFError as error:
            raise OSError("a job ended as it began") from error
        self._link.settimeout(None)
        sites = head.get("sites")
        if head.get("event") != "up" or not isinstance(sites, list):
            raise OSError("a call that is no controller's")
        return frozenset(str(site) for site in sites)

    def post(self, site: str, number: int, order: bytes) -> None:
        """Hand an order down; if the job is gone, ``alive`` will tell."""
        with contextlib.suppress(EOFError, OSError):
            write_message(self._orders, {"site": site, "number": number}, order)

    def give_up(self) -> None:
        """No order that is out is wanted any more."""
        with contextlib.suppress(EOFError, OSError):
            write_message(self._orders, {})

    def events(self, seconds: float) -> Iterator[Event]:
        """What comes in so much time; at most one, since another may have to be looked at first."""
        try:
            event = self._inbox.get(timeout=seconds)
        except queue.Empty:
            return
        if event is None:
            self.alive = False
            return
        if event.kind == "silent":
            self.silent[event.site] = time.time()
        elif event.kind in ("answer", "working"):
            self.silent.pop(event.site, None)
        yield event

    def close(self) -> None:
        """Hang up: the controller ends the job."""
        self.alive = False
        with contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):  # what was not yet written has no reader
            self._orders.close()
        self._link.close()

    def _listen(self) -> None:
        try:
            while True:
                head, body = read_message(self._answers)
                site, number = str(head["site"]), int(str(head["number"]))
                self._inbox.put(Event(str(head["event"]), site, number, body))
        except (EOFError, OSError, KeyError, ValueError):
            self._inbox.put(None)
        finally:
            self._answers.close()


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
    with socket.socket(socket.AF_UNIX) as listener:
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(1)
        try:
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
        finally:
            path.unlink(missing_ok=True)


def _gathered(engine: Engine, sites: Set[str], wanted: Set[str], end: float) -> Set[str]:
    """Sites that are connected; a little patience with those that are wanted."""
    until = min(end, time.monotonic() + _GATHER)
    while not wanted <= (here := engine.last_heard().keys()) and time.monotonic() < until:
        time.sleep(0.5)
    if not here & wanted:
        raise OSError("no site of this round is connected")
    return here & sites
