"""Pool: the courier to worker processes on this machine, over pipes.

A worker is any command that calls ``worker.serve``. It holds its own copy of the model and the
silos' data, dies when the pool does, and is started again when it dies alone: its order is then
sent once more, so delivery is at least once. No pickle crosses.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import NamedTuple

from silotune.core import ClientId
from silotune_link.process import Process, ProcessDied, ProcessStopped

FAILED = b"!"
"""What a worker says besides answers: why an order failed, in words."""


class WorkerError(RuntimeError):
    """A worker could not start, or failed at its task; the message is the worker's own."""


class Pool:
    """Worker processes, each of which can act for any client. Use it as a context manager."""

    def __init__(
        self, command: Sequence[str], workers: int = 2, told: Sequence[Future[bytes]] = ()
    ) -> None:
        """Nothing is started before the first order, or ``warm``.

        Args:
            command: starts one worker, which calls ``worker.serve``.
            workers: how many processes at most.
            told: what every worker gets as it starts; what is not known yet it waits for.
        """
        self._command, self._told = list(command), tuple(told)
        self._workers = self._fresh(workers)

    @property
    def size(self) -> int:
        """How many workers there are."""
        return len(self._workers)

    def warm(self) -> None:
        """Start all of them now, in the background; what fails is tried again with an order."""
        for worker in self._workers:
            threading.Thread(target=worker.warm, daemon=True).start()

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers:
            worker.stop()

    def exchange(
        self, orders: Mapping[ClientId, bytes], deadline: float
    ) -> Iterator[tuple[ClientId, bytes]]:
        """Hand orders to whoever is free.

        Raises:
            WorkerError: if a worker reports that its order failed.
        """
        end = time.monotonic() + deadline
        todo: queue.SimpleQueue[ClientId] = queue.SimpleQueue()
        done: queue.SimpleQueue[_Reply] = queue.SimpleQueue()
        for client in orders:
            todo.put(client)
        for worker in self._workers[: len(orders)]:
            work = (worker, orders, todo, done)
            threading.Thread(target=_work, args=work, daemon=True).start()
        answered = 0
        try:
            while answered < len(orders):
                reply = done.get(timeout=max(0.0, end - time.monotonic()))
                if reply.answer[:1] == FAILED:
                    raise WorkerError(reply.answer[1:].decode())
                answered += 1
                yield reply
        except queue.Empty:
            return
        finally:
            if answered < len(orders):
                self._give_up(todo)

    def _give_up(self, todo: queue.SimpleQueue[ClientId]) -> None:
        """Forget what was not begun and stop what was not finished."""
        with contextlib.suppress(queue.Empty):
            while True:
                todo.get_nowait()
        for worker in self._workers:
            worker.stop()
        self._workers = self._fresh(len(self._workers))

    def _fresh(self, workers: int) -> list[Process]:
        return [Process(self._command, told=self._told) for _ in range(workers)]


class _Reply(NamedTuple):
    """What came back, and for whom it was asked."""

    client: ClientId
    answer: bytes


def _work(
    worker: Process,
    orders: Mapping[ClientId, bytes],
    todo: queue.SimpleQueue[ClientId],
    done: queue.SimpleQueue[_Reply],
) -> None:
    """Carry orders until none is left, or the worker is stopped."""
    while True:
        try:
            client = todo.get_nowait()
        except queue.Empty:
            return
        try:
            answer = worker.ask(orders[client])
        except ProcessStopped:
            return
        except ProcessDied as error:
            answer = FAILED + f"a worker is given up: {error}; see its messages above".encode()
        done.put(_Reply(client, answer))
