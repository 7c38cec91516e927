"""Ray: the courier of a simulation to workers on several GPUs or machines.

An actor of Ray holds one worker, the same process that a pool has: so one frozen base a GPU. Orders
go to whoever is free. Ray starts an actor again that died, on the same machine or another, and
gives it its order once more. The state that all clients of a round begin from goes into Ray's store
once (``ray_orders``).

Every member of a Ray cluster can run any code on all others. So it is for one owner's machines, and
never between organisations. They share the disk that a run's folder and its data are on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from silotune.core import ClientId

from .pool import FAILED, WorkerError
from .ray_cluster import actors
from .ray_orders import Shelf


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
        self._log, self._ended = log, ExitStack()
        self._cluster = actors(command, log, workers=workers, device=device, told=told)
        self._actors: list[Any] = []

    def __enter__(self) -> RayCourier:
        with ExitStack() as begun:
            there = begun.enter_context(self._cluster)
            self._ray, self._begin = there.ray, there.begin
            begun.callback(self._kill)
            for _ in range(there.size):
                self._actors.append(self._begin())
            self._ended = begun.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.close()

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
                self._actors[worker] = self._begin()

    def _answer(self, reference: Any) -> bytes:
        try:
            answer: bytes = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            why = getattr(error, "cause", None) or type(error).__name__
            raise WorkerError(f"a worker is given up: {why}; see {self._log}") from error
        if answer[:1] == FAILED:
            raise WorkerError(answer[1:].decode())
        return answer

    def _kill(self) -> None:
        for actor in self._actors:
            self._ray.kill(actor)
