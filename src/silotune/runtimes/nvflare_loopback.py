"""A federation of NVIDIA FLARE on this machine: a server, sites and their daemons, with TLS.

For rehearsals and tests: all keys are made here, and every process is of this user. Each has a
session of its own, and is ended by its number.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType

from silotune.core import ClientId

from .nvflare_certificates import Credentials, Root, new_key, request_of
from .nvflare_kits import (
    LEAD,
    Address,
    Kit,
    check_kit,
    command,
    flare_name,
    lead_kit,
    server_kit,
    site_kit,
    write_kit,
)
from .nvflare_session import Engine

SERVER = "localhost"

_PATIENCE = 120.0
"""Seconds until all sites are to be connected."""


class Loopback:
    """What runs. Use it as a context manager; it is whole when that is entered.

    Attributes:
        folder: of everything; what a process says is there in ``<name>.out``.
        kits: by name, of the server, the coordinator and the sites.
        keys: public ones, of the sites.
        names: by which FLARE knows them.
        sockets: of the sites' daemons.
    """

    def __init__(self, folder: Path, trainers: Mapping[ClientId, Sequence[str]]) -> None:
        """Makes keys and kits.

        Args:
            folder: for all of it; near the root, since a socket's path is short.
            trainers: what starts each site's trainer (``silotune_link.process``).

        Raises:
            ValueError: if NVIDIA FLARE is not installed, or refuses.
        """
        self.folder, self._trainers = folder, trainers
        self.sockets = {site: folder / f"{site}.sock" for site in trainers}
        self.keys = {site: hashlib.sha256(site.encode()).hexdigest() for site in trainers}
        self.names = {site: flare_name(site, key) for site, key in self.keys.items()}
        self._made = self._kits()
        self.kits: dict[str, Path] = {}
        for name, kit in self._made.items():
            self.kits[name] = folder / "kits" / self.names.get(ClientId(name), name)
            write_kit(self.kits[name], kit)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Loopback:
        try:
            for site in self._trainers:
                self.start_daemon(site)
            for name in (SERVER, *self._trainers):
                self.start(name)
            self._await_sites()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def kit(self) -> Path:
        """The coordinator's."""
        return self.kits[LEAD]

    def start(self, name: str) -> None:
        """The server, or a site's FLARE process."""
        check_kit(self.kits[name], self._made[name])
        self._start(name, command(self.kits[name]))

    def start_daemon(self, site: ClientId) -> None:
        """A site's daemon, which starts its trainer."""
        log = self.folder / f"{site}.trainer.log"
        words = [str(self.sockets[site]), str(log), *self._trainers[site]]
        daemon = [sys.executable, "-m", "silotune_link.daemon", *words]
        process = self._start(_daemon(site), daemon)
        end = time.monotonic() + _PATIENCE
        while not _listens(self.sockets[site]):
            if process.poll() is not None or time.monotonic() > end:
                raise OSError(
                    f"the daemon of {site} does not start; see {self._said(_daemon(site))}"
                )
            time.sleep(0.02)

    def kill(self, name: str) -> None:
        """The server or a site's FLARE process, and the jobs of either."""
        for pid in self.jobs(name):
            _kill(pid)
        self._end(name)

    def kill_daemon(self, site: ClientId) -> None:
        """A site's daemon; its trainer ends with it."""
        self._end(_daemon(site))

    def jobs(self, name: str) -> Sequence[int]:
        """Numbers of FLARE's job processes of the server or a site."""
        kit = str(self.kits[name].resolve()).encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if kit in words and any(b"_process" in word for word in words):
                    found.append(int(entry.name))
        return found

    def stop(self) -> None:
        """End everything."""
        for name in list(self._processes):
            if name in self.kits:
                self.kill(name)
            else:
                self._end(name)

    def _kits(self) -> dict[str, Kit]:
        address, root = Address(SERVER, _free_port()), Root.create("rehearsal")
        until = datetime.now(UTC) + timedelta(days=1)
        made = {
            SERVER: server_kit(
                address, "rehearsal", root.server(SERVER, until), self.folder / "server"
            ),
            LEAD: lead_kit(address, "rehearsal", root.lead(LEAD, until)),
        }
        for site, socket_path in self.sockets.items():
            name, key = self.names[site], new_key()
            certificate = root.site(request_of(key, name), name, until)
            shown = Credentials(root.certificate, certificate, key)
            made[site] = site_kit(address, "rehearsal", name, shown, socket_path)
        return made

    def _await_sites(self) -> None:
        engine, end = Engine(self.kit), time.monotonic() + _PATIENCE
        here: set[str] = set()
        try:
            while not here >= set(self.names.values()):
                with contextlib.suppress(OSError, RuntimeError):
                    here = set(engine.last_heard())
                if time.monotonic() > end:
                    away = ", ".join(s for s, name in self.names.items() if name not in here)
                    raise OSError(f"{away} did not connect; see {self._said(SERVER)} and theirs")
                time.sleep(0.2)
        finally:
            engine.close()

    def _start(self, name: str, words: Sequence[str]) -> subprocess.Popen[bytes]:
        with self._said(name).open("ab") as out:
            process = self._processes[name] = subprocess.Popen(
                words,
                env=os.environ | {"HOME": str(self.folder)},  # where FLARE keeps notes
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                umask=0o077,
            )
        return process

    def _said(self, name: str) -> Path:
        return self.folder / f"{name}.out"

    def _end(self, name: str) -> None:
        process = self._processes.pop(name)
        _kill(process.pid)
        process.wait()


def _daemon(site: ClientId) -> str:
    return f"{site}.daemon"


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as link:
        try:
            link.connect(str(path))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
