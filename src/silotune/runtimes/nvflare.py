"""NVIDIA FLARE: the courier between organisations. FLARE carries bytes; the loop stays here.

A job of FLARE is one attempt. When it is lost (a process of it was killed, a site came back, the
server was started again), another is submitted and what is unanswered is sent once more. Sites
answer from what their daemons have kept, so nobody trains twice and nothing is charged twice.

The coordinator runs on the server's machine: FLARE's job process calls it on a local socket.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType

from silotune.core import ClientId

from .attempt import Attempt, Event
from .courier import Notice, Sign, refuse_strangers
from .nvflare_attempt import submitted
from .nvflare_kits import flare_name
from .nvflare_session import Engine

LOG = "engine.jsonl"
"""In the courier's folder: what happened to jobs and sites, a line of JSON each."""

_LOOK = 2.0
"""Seconds between two looks at who is connected."""

_INTERRUPT = 600.0
"""Seconds between two attempts that are begun for some sites while others are at work."""

_PAUSE = 1.0
"""Seconds until a server that is away is called again."""


class NvflareCourier:
    """The courier over a running federation of NVIDIA FLARE. Use it as a context manager.

    Args:
        kit: folder of the coordinator's credentials.
        sites: public keys of the run's sites, by name. They are looked up when they are needed: who
            is no longer there is neither asked nor heard.
        folder: where jobs are written, and ``engine.jsonl``.
        poll: seconds between two questions of a site for work. Every question costs some 5 kB.

    Raises:
        ValueError: on entry, if NVIDIA FLARE is not installed or the kit is none.
        ConnectionError: on entry, if no server answers, or it does not know this coordinator.
    """

    transport = "nvflare"

    def __init__(
        self, kit: Path, sites: Mapping[ClientId, str], folder: Path, poll: float = 1.0
    ) -> None:
        self._sites, self._folder, self._poll = sites, folder, poll
        self._of_run = frozenset(sites)
        self._engine = Engine(kit)
        own = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()
        self._name = f"silotune-{own[:16]}"  # of this run, so that no other's job is ended
        self._attempt: Attempt | None = None
        self._attempts = self._number = 0
        self._notice: Notice = _unheard
        self._interrupted = float("-inf")

    def __enter__(self) -> NvflareCourier:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._engine.connect()
        self._sockets = tempfile.TemporaryDirectory(prefix="silotune-")  # mode 0700, a short path
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end("the coordinator is done")
        self._engine.close()
        self._sockets.cleanup()

    def tell(self, notice: Notice) -> None:
        """Whom to tell, from now on, which sites are in the job, work, or have gone."""
        self._notice = notice

    def exchange(
        self, orders: Mapping[ClientId, bytes], deadline: float
    ) -> Iterator[tuple[ClientId, bytes]]:
        """Orders to sites. While the server or a site is away, they wait until the deadline.

        Raises:
            ValueError: if an order is for nobody of this run.
        """
        refuse_strangers(orders, self._of_run)
        end = time.monotonic() + deadline
        waiting = set(orders)
        names = self._named(waiting)
        if self._attempt is not None and self._back(self._attempt, set(names)):
            self._end("a site came back")
        current, numbers = None, dict[str, int]()
        looked = time.monotonic()
        try:
            while names and (left := end - time.monotonic()) > 0:
                if current is None or not current.alive:
                    current = self._running(set(names), end)
                    if current is None:
                        continue
                    numbers = self._posted(current, orders, names)
                for event in current.events(min(left, _LOOK)):
                    site = names.get(event.site)
                    self._heard(event, site)
                    if site is None or numbers.get(event.site) != event.number:
                        continue
                    if event.kind == "lost":  # nobody else has kept it
                        current.post(event.site, event.number, orders[site])
                    if event.kind == "answer" and event.site in self._named((site,)):
                        waiting.discard(site)
                        del numbers[event.site], names[event.site]
                        yield site, event.body
                if names and time.monotonic() - looked > _LOOK:
                    looked = time.monotonic()
                    names = self._named(waiting)
                    self._begin_again_for(current, set(names))
        finally:
            if names and current is not None:
                current.give_up()

    def _heard(self, event: Event, site: ClientId | None) -> None:
        """Note what a job says of a site; that it works, every few seconds, is told alone."""
        if event.kind != "working":
            self._note(event.kind, site=site or event.site)
        if site is None:
            return
        self._notice(site, Sign.GONE if event.kind == "silent" else Sign.HERE)
        if event.kind == "working":
            self._notice(site, Sign.WORKING)

    def _named(self, sites: Iterable[ClientId]) -> dict[str, ClientId]:
        """Those that are members now, by the names by which FLARE knows them."""
        keys = {site: self._sites.get(site) for site in sites}
        return {flare_name(site, key): site for site, key in keys.items() if key is not None}

    def _running(self, waiting: set[str], end: float) -> Attempt | None:
        """The attempt that goes on, or a new one; None if there is none yet."""
        if self._attempt is not None and self._attempt.alive:
            return self._attempt
        self._end("the job was lost")
        self._attempts += 1
        known = self._named(self._of_run)
        try:
            self._attempt = submitted(
                self._engine,
                self._name,
                self._folder / f"job-{self._attempts % 2}",
                Path(self._sockets.name) / f"{self._attempts}.sock",
                known.keys(),
                waiting,
                self._poll,
                end,
            )
        except (OSError, RuntimeError) as error:
            self._note("no job", why=str(error))
            self._engine.forget()
            time.sleep(max(0.0, min(_PAUSE, end - time.monotonic())))
            return None
        here = sorted(known[name] for name in self._attempt.sites & known.keys())
        self._note("job", job=self._attempt.job, sites=here)
        for name, site in sorted(known.items()):
            self._notice(site, Sign.HERE if name in self._attempt.sites else Sign.GONE)
        return self._attempt

    def _posted(
        self, attempt: Attempt, orders: Mapping[ClientId, bytes], names: Mapping[str, ClientId]
    ) -> dict[str, int]:
        """Numbers of the orders that are out; answers to older ones are nobody's."""
        numbers = {}
        for name in sorted(names.keys() & attempt.sites):
            self._number += 1
            numbers[name] = self._number
            attempt.post(name, self._number, orders[names[name]])
        return numbers

    def _begin_again_for(self, attempt: Attempt, waiting: set[str]) -> None:
        """End an attempt in which connected sites have no part; what is at work goes on."""
        back = self._back(attempt, waiting)
        now = time.monotonic()
        if not back or (back != waiting and now - self._interrupted < _INTERRUPT):
            return
        self._interrupted = now
        self._end(f"{', '.join(sorted(back))} came back")

    def _back(self, attempt: Attempt, waiting: set[str]) -> set[str]:
        """Sites that are connected, and not in the job or silent there since."""
        missing = waiting - attempt.sites | waiting & attempt.silent.keys()
        if not missing or not attempt.alive:
            return set()
        try:
            heard = self._engine.last_heard()
        except (OSError, RuntimeError):
            self._engine.forget()
            return set()
        return {
            site
            for site in missing
            if heard.get(site, 0.0) > attempt.silent.get(site, attempt.began)
        }

    def _end(self, why: str) -> None:
        if self._attempt is not None:
            self._note("end", job=self._attempt.job, why=why)
            self._attempt.close()
            self._engine.abort(self._attempt.job)
        self._attempt = None

    def _note(self, event: str, **what: object) -> None:
        line = {"time": round(time.time(), 3), "event": event, **what}
        with (self._folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _unheard(site: ClientId, sign: Sign) -> None:
    """Nobody wants to know."""
