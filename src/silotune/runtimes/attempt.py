"""One attempt to carry orders with an engine, and the socket on which the engine's process calls.

The coordinator listens, tells the engine where, and takes one call. Messages on the socket are
those of ``silotune_link.flare_server``.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import NamedTuple

from silotune_link.frames import read_message, write_message

_CALL = 30.0
"""Seconds until who calls says what it is."""


class Event(NamedTuple):
    """What is said of a site: ``answer``, ``working``, ``silent``, ``failed`` or ``lost``."""

    kind: str
    site: str
    number: int
    body: bytes


class Attempt:
    """One that is under way.

    Attributes:
        job: the engine's name for it.
        sites: that are in it.
        silent: when a site was noticed to say nothing (seconds since the epoch).
        began: when it did (likewise).
        alive: whether who called is still there.
    """

    def __init__(self, job: str, link: socket.socket) -> None:
        """Takes a call.

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
        """Hang up: who called ends."""
        self.alive = False
        with contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):  # what was not yet written has no reader
            self._orders.close()
        self._link.close()

    def _listen(self) -> None:
        try:
            while True:
                self._inbox.put(_event(*read_message(self._answers)))  # and keep none here
        except (EOFError, OSError, KeyError, ValueError):
            self._inbox.put(None)
        finally:
            self._answers.close()


def _event(head: Mapping[str, object], body: bytes) -> Event:
    return Event(str(head["event"]), str(head["site"]), int(str(head["number"])), body)


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A socket for one call of this user's, which no other attempt is told of."""
    with socket.socket(socket.AF_UNIX) as listener:
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(1)
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)
