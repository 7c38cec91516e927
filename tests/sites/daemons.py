"""Sites in processes of their own: each has its file, its home, a daemon and a trainer."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from federation.small import SILOS
from silotune.core.files import write_json
from silotune.federation.admission import Request
from silotune.federation.members import Members
from silotune.federation.workers import SILOTUNE
from silotune.models.hub import files_digest
from silotune.runtimes.nvflare_kits import Address
from silotune.site.membership import accept_admission, answer_invitation
from silotune_link.daemon import ask
from sites.wire import LEAD, table_of

ENVIRONMENT = {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}


class Place:
    """A site's file and home, near the root: a socket's path is short."""

    def __init__(self, folder: Path, name: str, model: Path) -> None:
        self.name, self.home, self.file = name, folder / name, folder / f"{name}.yaml"
        self.process: subprocess.Popen[bytes] | None = None
        self.file.write_text(
            f"""\
name: {name}
data: {{path: {table_of(folder, name)}, num_examples: 20, num_held_out: 2, valid_fraction: 0.11}}
home: {self.home}
models: {{{files_digest(str(model))}: {model}}}
device: cpu
threads: 1
policy:
  approve: any
  coordinator: {LEAD}
  columns: [text, label]
  privacy:
    units: [example, none]
    max_epsilon: 10
    max_delta: 1e-2
    relations: [add-remove]
    noise: [discrete, gaussian]
  methods: [ffa-lora]
  max_rounds: 20
  max_local_steps: 20
  accept_result: true
"""
        )
        self.file.chmod(0o600)
        self.home.mkdir(mode=0o700)

    @property
    def socket(self) -> Path:
        return self.home / "site.sock"

    def start(self) -> None:
        """The daemon alone."""
        trainer = [*SILOTUNE, "site", "trainer", "--site", str(self.file)]
        daemon = [sys.executable, "-P", "-m", "silotune_link.daemon"]
        self.popen([*daemon, str(self.socket), str(self.home / "trainer.log"), *trainer])
        until(self.socket.exists)

    def serve(self, *words: str) -> None:
        """``site serve``, without waiting for it."""
        self.popen([*self.serving, *words])

    @property
    def serving(self) -> list[str]:
        return [*SILOTUNE, "site", "serve", "--site", str(self.file)]

    def allow(self, text: str, instead: str) -> None:
        old = self.file.read_text()
        assert text in old
        self.file.write_text(old.replace(text, instead))

    def popen(self, words: list[str]) -> None:
        with (self.home / "said").open("ab") as out:
            self.process = subprocess.Popen(
                words,
                env=os.environ | ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def said(self) -> str:
        return (self.home / "said").read_text()

    def tree(self) -> dict[int, str]:
        """Every process below the one that was started, itself the first: its command."""
        found, commands = {self.process.pid: ""}, {}
        parents = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError):
                    stat = (entry / "stat").read_text().rpartition(")")[2].split()
                    if stat[0] != "Z":
                        parents[int(entry.name)] = int(stat[1])
                        words = (entry / "cmdline").read_bytes().decode().split("\0")
                        commands[int(entry.name)] = " ".join(words)
        while new := {p for p, parent in parents.items() if parent in found and p not in found}:
            found |= dict.fromkeys(new, "")
        return {pid: commands.get(pid, "") for pid in found}

    @property
    def trainer(self) -> int | None:
        return next((p for p, c in self.tree().items() if c.startswith(_START_OF_TRAINER)), None)

    def kill(self) -> None:
        """Everything at once."""
        for pid in self.tree():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(timeout=60)

    def carried(self, order: bytes) -> bytes:
        """Until there is an answer: the daemon may be started again meanwhile."""
        end = time.monotonic() + 120
        while True:
            try:
                return ask(self.socket, order)
            except ConnectionError:
                assert time.monotonic() < end, self.said()
                time.sleep(0.05)


_START_OF_TRAINER = " ".join([*SILOTUNE, "site", "trainer"])


class Daemons:
    """The courier to their sockets."""

    def __init__(self, places: dict[str, Place]) -> None:
        self.places = places
        self.orders: list[tuple[str, bytes]] = []

    def exchange(self, orders, deadline):
        for name, order in orders.items():
            self.orders.append((name, order))
            yield name, self.carried(name, order)

    def carried(self, name: str, order: bytes) -> bytes:
        return self.places[name].carried(order)


def admitted(folder: Path, places: dict[str, Place], server: Address | None = None) -> Members:
    """A federation of which all of them are members."""
    members = Members.create(folder, list(places), LEAD, server)
    for place in places.values():
        admit(members, place)
    return members


def admit(members: Members, place: Place) -> None:
    """From an invitation to a member, whatever it was before."""
    letter = members.folder / "letter"
    write_json(letter, answer_invitation(place.home, members.invite(place.name)))
    write_json(letter, members.approve(Request.read(letter)).signed(members.key))
    accept_admission(place.home, letter)


@contextmanager
def places(model: Path, names: tuple[str, ...] = SILOS) -> Iterator[dict[str, Place]]:
    """Sites that are not yet started; all that was is ended."""
    with tempfile.TemporaryDirectory(prefix="sites-") as folder:
        found = {name: Place(Path(folder), name, model) for name in names}
        try:
            yield found
        finally:
            for place in found.values():
                if place.process is not None and place.process.poll() is None:
                    place.kill()


def until(true: Callable[[], object], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
