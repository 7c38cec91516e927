"""Every courier, over real processes, to clients that a command answers for.

Each is opened with that command, the clients' names, and a folder of its own. What an engine needs
is skipped where it is not installed.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest

from covering import full
from runtimes.parties import COORDINATOR, FEDERATION, member
from silotune.runtimes import Courier, FolderCourier, Pool, answer_folder
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


COURIERS = [pool, full(folder), pytest.param(ray, marks=[pytest.mark.full, pytest.mark.engine])]
"""For ``parametrize``."""
