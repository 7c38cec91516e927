"""What does it take to carry a round's bytes to three sites and back?

``python -m benchmarks.wire [--quick] [--nvflare] [--flower] [--ray]``

Nothing is trained: a site gives back what it is sent. Seconds a round, by size of the message and
by courier: pipes to worker processes, signed files in a folder, actors of Ray, NVIDIA FLARE with
TLS on both sides, Flower with TLS and keys of nodes (servers and sites are processes of this
machine, which share its cores). Beside them seconds of processor time, of all processes together
that have not ended, which a busy machine moves less; and the most memory that any process of a kind
has held. Beside FLARE and Flower, what an example or app of their own takes to send and receive as
much; Ray's own is the courier, an actor that is sent bytes.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from silotune.core import ClientId, human_bytes
from silotune.keys import Member, public_of
from silotune.runtimes import FolderCourier, Pool, answer_folder
from silotune.runtimes.courier import Courier
from silotune.runtimes.flower import FlowerCourier
from silotune.runtimes.flower_loopback import FlowerLoopback
from silotune.runtimes.messages import TRAIN
from silotune.runtimes.nvflare import NvflareCourier
from silotune.runtimes.nvflare_loopback import Loopback
from silotune.runtimes.ray import RayCourier
from silotune.runtimes.signed_socket import answer_socket

from . import processes
from .flare_alone import flare_alone
from .measure import arguments, print_json, print_table

SITES = tuple(ClientId(f"hosp-{i}") for i in (1, 2, 3))
SIZES = {"10 kB": 10_000, "1 MB": 1_000_000, "10 MB": 10_000_000, "100 MB": 100_000_000}
ECHO = [
    sys.executable,
    "-c",
    "import sys\n"
    "from silotune_link.frames import READY, read_frame, write_frame\n"
    "answers, orders = sys.stdout.buffer, sys.stdin.buffer\n"
    "write_frame(answers, READY)\n"
    "while True: write_frame(answers, read_frame(orders))",
]
Opened = Callable[[], AbstractContextManager[Courier]]

OWN = 1000
"""Bytes of an order that are of its site alone."""

POLL = 0.1
"""Seconds between two questions of a FLARE site for work."""


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--nvflare", action="store_true", help="over NVIDIA FLARE as well")
    parser.add_argument("--flower", action="store_true", help="over Flower, and Flower by itself")
    parser.add_argument("--ray", action="store_true", help="over Ray as well")
    asked = parser.parse_args()
    sizes = dict(list(SIZES.items())[: 2 if asked.quick else 4])
    engines: dict[str, tuple[str, Opened]] = {
        "nvflare": ("NVIDIA FLARE", flare),
        "flower": ("Flower", flower),
        "ray": ("Ray", ray),
    }
    couriers: dict[str, Opened] = {"pipes": pipes, "folder": folder}
    couriers |= dict(row for name, row in engines.items() if getattr(asked, name))
    took: dict[str, dict[str, Took]] = {}
    memory: dict[str, dict[str, int]] = {}
    for name, opened in couriers.items():
        with opened() as courier:
            a_round(courier, 1000)
            took[name] = {
                label: min(a_round(courier, size) for _ in range(2 if asked.quick else 3))
                for label, size in sizes.items()
            }
            memory[name] = processes.most()
    alone: dict[str, dict[str, float]] = {}
    if asked.nvflare:
        alone["NVIDIA FLARE's numpy example"] = flare_alone(SITES, ECHO, sizes, POLL)
    if asked.flower:
        alone["an app of Flower's"] = flower_alone(sizes)
    print_table(
        "seconds of a round that does nothing, three sites (of processor time)",
        ["", *sizes],
        [
            [name, *(f"{t.wall:.3f} ({t.cpu:.2f})" for t in of.values())]
            for name, of in took.items()
        ],
    )
    for name, most in memory.items():
        held = ", ".join(f"{kind} {human_bytes(size)}" for kind, size in sorted(most.items()))
        print(f"{name}, most memory: {held}")
    if alone:
        rows = [[name, *(f"{s:.3f}" for s in of.values())] for name, of in alone.items()]
        print_table("as much by the engine itself, seconds", ["", *sizes], rows)
    print_json(took=took, memory=memory, alone=alone)


class Took(NamedTuple):
    """Seconds of a round, and of processor time."""

    wall: float
    cpu: float


def a_round(courier: Courier, size: int) -> Took:
    """One round; as in one that trains, orders begin each in its own way, and end with a state.

    No two rounds have the same, or nothing would be carried.
    """
    state = os.urandom(max(0, size - OWN))
    own = min(size, OWN) - 1  # a byte before it tells a kind; workers tell failures by one of them
    orders = {site: TRAIN + os.urandom(own) + state for site in SITES}
    cpu, start = processes.seconds(), time.perf_counter()
    answers = dict(courier.exchange(orders, 600.0))
    took = Took(time.perf_counter() - start, processes.seconds() - cpu)
    if answers != orders:
        raise RuntimeError("not everybody answered")
    return took


@contextmanager
def pipes() -> Iterator[Courier]:
    with Pool(ECHO, workers=len(SITES)) as pool:
        yield pool


@contextmanager
def folder() -> Iterator[Courier]:
    """The sites are threads of this process, which look into their folders all the time."""
    coordinator = Ed25519PrivateKey.generate()
    keys = {site: Ed25519PrivateKey.generate() for site in SITES}
    over = threading.Event()

    def look(root: Path, member: Member) -> None:
        while not over.wait(0.01):
            answer_folder(root, member, lambda order: order)

    with tempfile.TemporaryDirectory() as place:
        members = [Member("wire", site, public_of(coordinator), keys[site]) for site in SITES]
        looking = [threading.Thread(target=look, args=(Path(place), one)) for one in members]
        public = {site: public_of(key) for site, key in keys.items()}
        with FolderCourier(Path(place), "wire", coordinator, public) as courier:
            for thread in looking:
                thread.start()
            try:
                yield courier
            finally:
                over.set()
                for thread in looking:
                    thread.join()


@contextmanager
def ray() -> Iterator[Courier]:
    with tempfile.TemporaryDirectory() as place:
        workers = min(len(SITES), os.cpu_count() or 1)
        with RayCourier(ECHO, Path(place) / "log", workers, "cpu") as courier:
            yield courier


@contextmanager
def flower() -> Iterator[Courier]:
    coordinator = Ed25519PrivateKey.generate()
    keys = {site: Ed25519PrivateKey.generate() for site in SITES}
    public = {site: public_of(key) for site, key in keys.items()}
    with nodes() as (near, federation, doors):
        for site, key in keys.items():
            member = Member("wire", site, public_of(coordinator), key)
            here = (doors[site], member, lambda order: order)
            threading.Thread(target=answer_socket, args=here, daemon=True).start()
        with FlowerCourier(federation.home, "wire", coordinator, public, near / "run") as courier:
            yield courier


@contextmanager
def nodes() -> Iterator[tuple[Path, FlowerLoopback, dict[ClientId, Path]]]:
    """A federation of Flower, and the sockets that its nodes ask."""
    near = Path(tempfile.mkdtemp(prefix="wire-"))  # near the root: a socket's path is short
    doors = {site: near / f"{site}.sock" for site in SITES}
    try:
        with FlowerLoopback(near / "flower", doors) as federation:
            yield near, federation, doors
    finally:
        shutil.rmtree(near, ignore_errors=True)


ALONE = """\
import json, os, time
from pathlib import Path
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

server_app = ServerApp()
client_app = ClientApp()


@client_app.train()
def echo(message, context):
    return Message(message.content, reply_to=message)


@server_app.main()
def main(grid, context):
    took = []
    while len(nodes := list(grid.get_node_ids())) < NODES:
        time.sleep(0.5)
    for size in [1000, *SIZES]:
        arrays = [Array("uint8", (size,), "bytes", os.urandom(size)) for _ in nodes]
        bodies = [RecordDict({"body": ArrayRecord({"it": array})}) for array in arrays]
        messages = [Message(body, node, "train") for body, node in zip(bodies, nodes)]
        start = time.perf_counter()
        if len(list(grid.send_and_receive(messages))) != NODES:
            raise RuntimeError("not everybody answered")
        took.append(time.perf_counter() - start)
    Path(DONE).write_text(json.dumps(took[1:]))
"""
"""An app that gives back what it is sent, as Flower's own examples are written."""

BUNDLE = """\
[project]
name = "echo"
version = "1.0.0"
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "silotune"
[tool.flwr.app.components]
serverapp = "echo:server_app"
clientapp = "echo:client_app"
"""


def flower_alone(sizes: dict[str, int]) -> dict[str, float]:
    """Seconds of one round of each size, after one that is not counted."""
    with nodes() as (near, federation, _):
        app, done = near / "app", near / "done"
        (app / "echo").mkdir(parents=True)
        (app / "pyproject.toml").write_text(BUNDLE)
        given = f"SIZES = {list(sizes.values())}\nNODES = {len(SITES)}\nDONE = {str(done)!r}\n"
        (app / "echo" / "__init__.py").write_text(ALONE + given)
        federation.command("run", str(app))
        end = time.monotonic() + 900
        while not done.exists() or not done.read_text():
            if time.monotonic() > end:
                raise RuntimeError("Flower by itself did not come to an end")
            time.sleep(0.5)
        return dict(zip(sizes, json.loads(done.read_text()), strict=True))


@contextmanager
def flare() -> Iterator[Courier]:
    place = Path(tempfile.mkdtemp(prefix="wire-"))  # near the root: a socket's path is short
    try:
        with (
            Loopback(place, dict.fromkeys(SITES, ECHO)) as federation,
            NvflareCourier(federation.kit, federation.keys, place / "run", poll=POLL) as courier,
        ):
            yield courier
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
