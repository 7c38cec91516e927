"""A federation of NVIDIA FLARE on this machine: a server, sites, their daemons, all by themselves.

Every process has a session of its own and is ended by its number. The trainers echo: no torch.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from silotune.runtimes.nvflare import NvflareCourier
from silotune.runtimes.nvflare_kits import check, command, harden_server, harden_site
from silotune.runtimes.nvflare_provision import Address, provision_all

ECHO = [sys.executable, str(Path(__file__).parent / "link" / "echo.py")]
LEAD = "lead@coord.org"
POLL = 0.1
PATH = os.pathsep.join(sys.path)


class Federation:
    """What runs, by name; ``localhost`` is the server."""

    def __init__(self, folder: Path, sites: tuple[str, ...]) -> None:
        self.folder, self.sites = folder, sites
        address = Address("fed", "localhost", free_port())
        self.kits = provision_all(folder / "kits", address, LEAD, sites)
        self.sockets = {site: folder / f"{site}.sock" for site in sites}
        self.digests = {site: harden_site(self.kits[site], self.sockets[site]) for site in sites}
        self.digests["localhost"] = harden_server(self.kits["localhost"], folder / "server")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        check(self.kits[name], self.digests[name])
        self._popen(name, command(self.kits[name]))

    def start_daemon(self, site: str, trainer=ECHO) -> None:
        words = [str(self.sockets[site]), str(self.folder / f"{site}.log"), *trainer]
        name = f"daemon of {site}"
        self._popen(name, [sys.executable, "-m", "silotune_link.daemon", *words])
        until(self.sockets[site].exists)

    def _popen(self, name: str, words) -> None:
        with (self.folder / f"{name}.out").open("ab") as out:
            self.processes[name] = subprocess.Popen(
                words,
                env=os.environ | {"PYTHONPATH": PATH, "HOME": str(self.folder)},
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                umask=0o077,
            )

    def kill(self, name: str) -> None:
        """A process and all that it has started, at once."""
        process = self.processes.pop(name)
        for pid in (process.pid, *self.jobs(name)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()

    def jobs(self, name: str) -> list[int]:
        """FLARE's job processes of a site or the server."""
        kit = f"{self.kits[name]}" if name in self.kits else "\0none"
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes().decode().split("\0")
                    runs = any("worker_process" in w or "runner_process" in w for w in words)
                    if runs and kit in words:
                        found.append(int(entry.name))
        return found

    def courier(self, folder: Path) -> NvflareCourier:
        return NvflareCourier(self.kits[LEAD], self.sites, folder, poll=POLL)

    def stop(self) -> None:
        for name in list(self.processes):
            self.kill(name)


@contextlib.contextmanager
def running(folder: Path, sites=("hosp-1", "hosp-2", "hosp-3")) -> Iterator[Federation]:
    federation = Federation(folder, sites)
    try:
        for site in sites:
            federation.start_daemon(site)
        for name in ("localhost", *sites):
            federation.start(name)
        yield federation
    finally:
        federation.stop()


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
