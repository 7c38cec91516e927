"""Flower: the courier for organisations that run it already. Flower carries bytes, and no more.

A run of Flower is one attempt, as a job is of NVIDIA FLARE (``nvflare``): when it is lost, another
is started and what is unanswered is sent once more. It brings no code; both ends are installed.

In the open-source Flower whoever reaches the SuperLink can have code of their own run on every
SuperNode, and answer as any of them. So nothing is believed that Flower says: orders are signed by
the coordinator and answers by the site (``signed_socket``), and a site's SuperNode reaches nothing
of the site but that socket. Which node is a site's only says where its orders go.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from silotune.core import ClientId

from .attempt import Attempt, Event, listening
from .courier import Notice, Sign, refuse_strangers
from .signed_files import digest_of
from .signed_messages import sealed, unsealed
from .signed_socket import ANSWER, ORDER, about

NODES = "nodes.json"
"""In the coordinator's folder for Flower: the number of each site's node, by the site's name."""

LOG = "engine.jsonl"
"""In the courier's folder: what happened to runs and sites, a line of JSON each."""

QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
"""Of the environment of every process of Flower: it calls home, and is slow where it cannot."""

_APP = """\
[project]
name = "silotune-courier"
version = "1.0.0"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "silotune"

[tool.flwr.app.components]
serverapp = "silotune_link.flower_server:server_app"
clientapp = "silotune_link.flower_site:client_app"

[tool.flwr.app.config]
socket = {socket}
wait = {wait}
"""

_CALL = 90.0
"""Seconds until a run that was started calls: Flower starts a process or two."""

_PAUSE = 2.0
"""Seconds until a SuperLink that is away is called again."""


class FlowerCourier:
    """The courier over a SuperLink that runs on this machine. Use it as a context manager.

    Args:
        home: the coordinator's folder for Flower (``FLWR_HOME``): ``config.toml``, whose default
            SuperLink is the one, and ``nodes.json``.
        federation: identifies it among all that there are.
        key: the coordinator's.
        sites: public keys, by name; looked up when they are needed, as by ``FolderCourier``.
        folder: where the run of Flower is written, and ``engine.jsonl``.
        wait: seconds that a site has for an order before it says that work goes on.

    Raises:
        ValueError: on entry, if Flower is not installed, or a site has no node.
    """

    transport = "flower"

    def __init__(
        self,
        home: Path,
        federation: str,
        key: Ed25519PrivateKey,
        sites: Mapping[ClientId, str],
        folder: Path,
        wait: float = 60.0,
    ) -> None:
        self._home, self._federation, self._key, self._sites = home, federation, key, sites
        self._names = frozenset(sites)
        self._folder, self._wait = folder, wait
        self._attempt: Attempt | None = None
        self._notice: Notice | None = None
        self._attempts, self._number = 0, time.time_ns()  # no two processes ask by one number

    def __enter__(self) -> FlowerCourier:
        if find_spec("flwr") is None:
            raise ValueError("runtime: flower needs Flower; pip install 'silotune[flower]'")
        self._nodes = nodes_of(self._home, self._names)
        self._clients = {str(node): site for site, node in self._nodes.items()}
        self._folder.mkdir(parents=True, exist_ok=True)
        self._sockets = tempfile.TemporaryDirectory(prefix="silotune-")  # mode 0700, a short path
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end("the coordinator is done")
        self._sockets.cleanup()

    def tell(self, notice: Notice) -> None:
        """Whom to tell what Flower says of sites; it is not signed."""
        self._notice = notice

    def exchange(
        self, orders: Mapping[ClientId, bytes], deadline: float
    ) -> Iterator[tuple[ClientId, bytes]]:
        """Orders to sites. While the SuperLink or a site is away, they wait until the deadline.

        Raises:
            ValueError: if an order is for nobody of this run.
        """
        refuse_strangers(orders, self._names)
        end = time.monotonic() + deadline
        waiting = {site for site in orders if site in self._sites}
        for site in sorted(set(orders) - waiting):
            self._note("no member any more", site=site)
        current, asked = None, dict[ClientId, _Asked]()
        try:
            while waiting and (left := end - time.monotonic()) > 0:
                if current is None or not current.alive:
                    current = self._running(end)
                    if current is None:
                        continue
                    asked = {s: self._post(current, s, orders[s]) for s in sorted(waiting)}
                for event in current.events(left):
                    site = self._clients.get(event.site, ClientId(""))
                    self._heard(event, site)
                    if event.kind != "answer" or site not in waiting:
                        continue
                    answer = self._opened(site, asked[site], event.body)
                    if answer is not None:
                        waiting.discard(site)
                        yield site, answer
                    elif site in self._sites:
                        self._note("not signed by the site", site=site)
                        asked[site] = self._post(current, site, orders[site])
        finally:
            if waiting and current is not None:
                current.give_up()

    def _heard(self, event: Event, site: ClientId) -> None:
        if event.kind != "working":
            self._note(event.kind, site=site or event.site)
        if site and self._notice is not None:
            self._notice(site, _SIGNS.get(event.kind, Sign.HERE))

    def _post(self, attempt: Attempt, site: ClientId, order: bytes) -> _Asked:
        self._number += 1
        message = sealed(self._key, about(ORDER, self._federation, site), self._number, order)
        attempt.post(str(self._nodes[site]), self._number, message)
        return _Asked(self._number, digest_of(order))

    def _opened(self, site: ClientId, asked: _Asked, message: bytes) -> bytes | None:
        """What a site has said to this very order; None if it has not."""
        public = self._sites.get(site)
        if public is None:
            return None
        answer = unsealed(message, public, about(ANSWER, self._federation, site, asked.digest))
        return answer.content if answer is not None and answer.number == asked.number else None

    def _running(self, end: float) -> Attempt | None:
        """The attempt that goes on, or a new one; None if there is none yet."""
        if self._attempt is not None and self._attempt.alive:
            return self._attempt
        self._end("the run was lost")
        self._attempts += 1
        try:
            self._attempt = self._started(end)
        except (OSError, subprocess.TimeoutExpired) as error:
            self._note("no run", why=str(error))
            time.sleep(max(0.0, min(_PAUSE, end - time.monotonic())))
            return None
        self._note("run", run=self._attempt.job)
        return self._attempt

    def _started(self, end: float) -> Attempt:
        app = self._folder / "flower-app"
        app.mkdir(exist_ok=True)
        path = Path(self._sockets.name) / f"{self._attempts}.sock"
        settings = _APP.format(socket=json.dumps(str(path)), wait=float(self._wait))
        (app / "pyproject.toml").write_text(settings)
        with listening(path) as listener:
            began = subprocess.run(
                [sys.executable, "-m", "flwr.cli.app", "run", str(app), "--format", "json"],
                env={**os.environ, **QUIET, "FLWR_HOME": str(self._home.resolve())},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_CALL,
                check=False,
            )
            if began.returncode:
                raise OSError(f"flwr run: {_last(began.stdout + began.stderr)}")
            listener.settimeout(max(0.1, min(_CALL, end - time.monotonic())))
            link, _ = listener.accept()
            return Attempt(_run(began.stdout.decode()), link)

    def _end(self, why: str) -> None:
        if self._attempt is not None:
            self._note("end", run=self._attempt.job, why=why)
            self._attempt.close()
        self._attempt = None

    def _note(self, event: str, **what: object) -> None:
        line = {"time": round(time.time(), 3), "event": event, **what}
        with (self._folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


_SIGNS = {"silent": Sign.GONE, "working": Sign.WORKING}
"""What an event shows of a site; any other, that it is there."""


class _Asked(NamedTuple):
    """What a site was asked last."""

    number: int
    digest: str


def nodes_of(home: Path, sites: frozenset[ClientId]) -> Mapping[ClientId, int]:
    """The number of each site's node, as ``flwr supernode register`` told it.

    Args:
        home: the coordinator's folder for Flower.
        sites: that must have one.

    Raises:
        ValueError: naming the file, if it is none, or a site has no node of its own.
    """
    file = home / NODES
    example = '{"hosp-1": 1234, ...}, as `flwr supernode register` prints it'
    try:
        told = json.loads(file.read_text())
        nodes = {ClientId(site): int(told[site]) for site in sites}
    except FileNotFoundError as error:
        raise ValueError(f"{file} is missing; write the node of every site: {example}") from error
    except KeyError as error:
        raise ValueError(f"{file}: {error.args[0]} has no node; add it: {example}") from error
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{file}: damaged; write the node of every site: {example}") from error
    if len(set(nodes.values())) < len(nodes):
        raise ValueError(f"{file}: two sites have one node; each is registered by its own key")
    return nodes


def _run(said: str) -> str:
    """Flower's number of the run that it says to have started."""
    found = re.search(r'"run-id": "([0-9]+)"', said)
    return found.group(1) if found else "unknown"


def _last(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return " ".join(lines[-1].split())[:200] if lines else "it said nothing"
