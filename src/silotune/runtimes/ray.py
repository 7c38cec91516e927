"""Ray: the courier of a simulation to workers on several GPUs or machines.

An actor of Ray holds one worker, the same process that a pool has: so one frozen base a GPU. Orders
go to whoever is free. Ray starts an actor again that died, on the same machine or another, and
gives it its order once more. The state that all clients of a round begin from goes into Ray's store
once (``ray_orders``).

Every member of a Ray cluster can run any code on all others. So it is for one owner's machines, and
never between organisations. They share the disk that a run's folder and its data are on.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from silotune.core import ClientId
from silotune_link.process import TRIES
from silotune_link.ray_actor import Actor

from .pool import FAILED, WorkerError
from .ray_orders import Shelf

_SETTINGS = ("OMP_NUM_THREADS", "PYTHONPATH")
"""What workers take over from this process: Ray would set threads, on which last bits depend."""


class RayCourier:
    """The courier to workers that Ray starts: one a GPU. Use it as a context manager.

    It joins the cluster that this machine is part of, or that ``RAY_ADDRESS`` names; where there is
    none, it starts one here and ends it.

    Args:
        command: starts one worker, which calls ``worker.serve``. Its first word is Python, which
            on another machine is that machine's.
        log: what workers say is added to this file.
        workers: how many there are where no GPU is used; each takes a CPU.
        device: ``cuda`` = on GPUs; ``cpu`` = on none; ``auto`` = on GPUs if the cluster has any.
        told: what every worker gets as it starts.

    Raises:
        ValueError: on entry, if Ray is not installed, or the cluster has not what is asked for.
        ConnectionError: on entry, if Ray does not start.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        workers: int = 2,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        told: Sequence[bytes] = (),
    ) -> None:
        self._words, self._log, self._told = list(command[1:]), log, list(told)
        self._workers, self._device = workers, device
        self._actors: list[Any] = []

    def __enter__(self) -> RayCourier:
        self._ray = _installed()
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._ours = not self._ray.is_initialized()
        if self._ours:
            _start(self._ray)
        try:
            self._kind, count = self._chosen()
            self._actors = [self._actor() for _ in range(count)]
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for actor in self._actors:
            self._ray.kill(actor)
        self._leave()

    @property
    def size(self) -> int:
        """How many workers there are."""
        return len(self._actors)

    def exchange(
        self, orders: Mapping[ClientId, bytes], deadline: float
    ) -> Iterator[tuple[ClientId, bytes]]:
        """Hand orders to whoever is free.

        Raises:
            WorkerError: if a worker reports that its order failed, or is given up.
        """
        end = time.monotonic() + deadline
        todo, free = list(orders), list(range(len(self._actors)))
        busy: dict[Any, tuple[int, ClientId]] = {}
        shelf = Shelf(self._ray.put)
        try:
            while todo or busy:
                while todo and free:
                    worker, client = free.pop(), todo.pop(0)
                    order = shelf.parts(orders[client])
                    busy[self._actors[worker].answer.remote(*order)] = worker, client
                done, _ = self._ray.wait(list(busy), timeout=max(0.0, end - time.monotonic()))
                if not done:
                    return
                answer = self._answer(done[0])
                worker, client = busy.pop(done[0])
                free.append(worker)
                yield client, answer
        finally:
            for worker, _ in busy.values():  # who is late is stopped, and another begins
                self._ray.kill(self._actors[worker])
                self._actors[worker] = self._actor()

    def _answer(self, reference: Any) -> bytes:
        try:
            answer: bytes = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            why = getattr(error, "cause", None) or type(error).__name__
            raise WorkerError(f"a worker is given up: {why}; see {self._log}") from error
        if answer[:1] == FAILED:
            raise WorkerError(answer[1:].decode())
        return answer

    def _actor(self) -> Any:
        settings = {name: os.environ.get(name) for name in _SETTINGS}
        return self._kind.remote(self._words, self._log, Path.cwd(), settings, self._told)

    def _chosen(self) -> tuple[Any, int]:
        """The kind of actor, and how many."""
        here = self._ray.cluster_resources()
        gpus, cpus = int(here.get("GPU", 0)), int(here.get("CPU", 0))
        if self._device == "cuda" and not gpus:
            raise ValueError("device: cuda is not available in Ray's cluster; use cpu or auto")
        on_gpus = gpus > 0 and self._device != "cpu"
        if not on_gpus and self._workers > cpus:
            raise ValueError(f"workers: Ray's cluster has {cpus} CPUs; ask for {cpus} at most")
        options = {
            "num_cpus": 0 if on_gpus else 1,
            "num_gpus": 1 if on_gpus else 0,
            "max_restarts": -1,
            "max_task_retries": TRIES - 1,
            "scheduling_strategy": "SPREAD",
        }
        return self._ray.remote(**options)(Actor), gpus if on_gpus else self._workers

    def _leave(self) -> None:
        if self._ours:
            self._ray.shutdown()


def _installed() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ValueError("runtime: ray needs Ray; pip install 'silotune[ray]'") from error
    return ray


def _start(ray: Any) -> None:
    """Join a cluster, or start one; on a busy machine the first attempt may fail."""
    for last in (False, True):
        try:
            with _own_signals():
                ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
            return
        except Exception as error:  # Ray's errors have no base of their own
            ray.shutdown()
            if last:
                raise ConnectionError(f"Ray does not start: {error}") from error


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray would hear SIGTERM itself; it stays with whoever ends this process in order."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
