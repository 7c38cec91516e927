"""What does it take to carry a round's bytes to three sites and back?

``python -m benchmarks.wire [--quick] [--nvflare]``

Nothing is trained: a site gives back what it is sent. Seconds a round, by size of the message and
by courier: pipes to worker processes, signed files in a folder, NVIDIA FLARE with TLS on both sides
(its three sites and its server are processes of this machine, which share its cores). Beside them
seconds of processor time, of all processes together, which a busy machine moves less; and the most
memory that any process of a kind has held.
"""

from __future__ import annotations

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
from silotune.runtimes.nvflare import NvflareCourier
from silotune.runtimes.nvflare_loopback import Loopback

from . import processes
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

POLL = 0.1
"""Seconds between two questions of a FLARE site for work."""


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--nvflare", action="store_true", help="over NVIDIA FLARE as well")
    asked = parser.parse_args()
    sizes = dict(list(SIZES.items())[: 2 if asked.quick else 4])
    couriers: dict[str, Opened] = {"pipes": pipes, "folder": folder} | (
        {"NVIDIA FLARE": flare} if asked.nvflare else {}
    )
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
    print_json(took=took, memory=memory)


class Took(NamedTuple):
    """Seconds of a round, and of processor time."""

    wall: float
    cpu: float


def a_round(courier: Courier, size: int) -> Took:
    """One round; no two orders are the same, or nothing would be carried."""
    orders = {site: os.urandom(size) for site in SITES}
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
