"""Every courier, over real processes, to clients that a command answers for.

Each is opened with that command, the clients' names, and a folder of its own. What an engine needs
is skipped where it is not installed.
"""

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest

from covering import full
from runtimes.parties import COORDINATOR, FEDERATION, member
from silotune.runtimes import Courier, FolderCourier, Pool, answer_folder
from silotune.runtimes.signed_socket import answer_socket
from silotune_link.process import Process, ProcessStopped

Open = Callable[[Sequence[str], Sequence[str], Path], AbstractContextManager[Courier]]


def pool(command: Sequence[str], names: Sequence[str], place: Path) -> Pool:
    return Pool(command)


@contextmanager
def folder(command: Sequence[str], names: Sequence[str], place: Path) -> Iterator[Courier]:
    """Each site keeps a process of its own, and looks into its folder all the time."""
    sites = {name: Process(command) for name in names}
    over = threading.Event()

    def look(name: str, process: Process) -> None:
        with suppress(ProcessStopped):
            while not over.wait(0.005):
                answer_folder(place, member(name), process.ask)

    threads = [threading.Thread(target=look, args=site) for site in sites.items()]
    public = {name: member(name).public for name in names}
    with FolderCourier(place, FEDERATION, COORDINATOR, public) as courier:
        for thread in threads:
            thread.start()
        try:
            yield courier
        finally:
            over.set()
            for process in sites.values():
                process.stop()
            for thread in threads:
                thread.join()


def ray(command: Sequence[str], names: Sequence[str], place: Path) -> AbstractContextManager:
    pytest.importorskip("ray", reason="Ray is not installed: silotune[ray]")
    from silotune.runtimes.ray import RayCourier

    return RayCourier(command, place / "workers.log")


@contextmanager
def flare(command: Sequence[str], names: Sequence[str], place: Path) -> Iterator[Courier]:
    pytest.importorskip("nvflare", reason="NVIDIA FLARE is not installed: silotune[nvflare]")
    from silotune.runtimes.nvflare import NvflareCourier
    from silotune.runtimes.nvflare_loopback import Loopback

    with (
        near_the_root() as near,
        Loopback(near, dict.fromkeys(names, command)) as federation,
        NvflareCourier(federation.kit, federation.keys, place, poll=0.1) as courier,
    ):
        yield courier


@contextmanager
def flower(command: Sequence[str], names: Sequence[str], place: Path) -> Iterator[Courier]:
    pytest.importorskip("flwr", reason="Flower is not installed: silotune[flower]")
    from silotune.runtimes.flower import FlowerCourier
    from silotune.runtimes.flower_loopback import FlowerLoopback

    public = {name: member(name).public for name in names}
    with (
        near_the_root() as near,
        doors(command, names, near) as sockets,
        FlowerLoopback(near / "flower", sockets) as federation,
        FlowerCourier(federation.home, FEDERATION, COORDINATOR, public, place) as courier,
    ):
        yield courier


@contextmanager
def doors(command: Sequence[str], names: Sequence[str], near: Path) -> Iterator[dict[str, Path]]:
    """The socket at which each site answers, by a process of its own."""
    sites = {name: Process(command) for name in names}
    sockets = {name: near / f"{name}.sock" for name in names}

    def answer(name: str) -> None:
        answer_socket(sockets[name], member(name), sites[name].ask)

    for name in names:
        threading.Thread(target=answer, args=(name,), daemon=True).start()
    try:
        yield sockets
    finally:
        for process in sites.values():
            process.stop()


@contextmanager
def near_the_root() -> Iterator[Path]:
    """A folder: a socket's path is short."""
    folder = Path(tempfile.mkdtemp(prefix="c-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


ENGINE = [pytest.mark.full, pytest.mark.engine]
SLOW = [pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(900)]
COURIERS = [
    pool,
    full(folder),
    pytest.param(ray, marks=ENGINE),
    pytest.param(flare, marks=SLOW),
    pytest.param(flower, marks=SLOW),
]
"""For ``parametrize``."""
