"""Pool: the courier to worker processes on this machine, over pipes.

A worker is any command that calls ``worker.serve``. It holds its own copy of the model and the
silos' data, dies when the pool does, and is started again when it dies alone: its order is then
sent once more, so delivery is at least once. No pickle crosses.
"""

from __future__ import annotations

import contextlib
import queue
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import BinaryIO, NamedTuple, cast

from silotune.core import ClientId

from .frames import read_frame, write_frame

READY, FAILED = b"+", b"!"
"""What a worker says besides answers: that it is there; why an order failed, in words."""

_TRIES = 3


class WorkerError(RuntimeError):
    """A worker could not start, or failed at its task; the message is the worker's own."""


class Pool:
    """Worker processes, each of which can act for any client. Use it as a context manager."""

    def __init__(self, command: Sequence[str], workers: int = 2) -> None:
        """Nothing is started before the first order.

        Args:
            command: starts one worker, which calls ``worker.serve``.
            workers: how many processes at most.
        """
        self._slots = [_Slot(list(command)) for _ in range(workers)]

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for slot in self._slots:
            slot.kill()

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
        for slot in self._slots[: len(orders)]:
            threading.Thread(target=slot.work, args=(orders, todo, done), daemon=True).start()
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
        while not todo.empty():
            todo.get()
        for slot in self._slots:
            slot.kill()


class _Reply(NamedTuple):
    """What came back, and for whom it was asked."""

    client: ClientId
    answer: bytes


class _Slot:
    """A place for one worker; starts it when needed and again when it dies."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._job: object | None = None  # what this slot works for now; None once stopped

    def kill(self) -> None:
        """Stop the worker at once."""
        with self._lock:
            self._job = None
            self._end()

    def work(
        self,
        orders: Mapping[ClientId, bytes],
        todo: queue.SimpleQueue[ClientId],
        done: queue.SimpleQueue[_Reply],
    ) -> None:
        """Carry orders until none is left."""
        self._job = job = object()
        while True:
            try:
                client = todo.get_nowait()
            except queue.Empty:
                return
            answer = self._ask(orders[client], job)
            if answer is None:
                return
            done.put(_Reply(client, answer))

    def _ask(self, order: bytes, job: object) -> bytes | None:
        """One answer; a worker that dies is replaced, a few times. None once stopped."""
        for _ in range(_TRIES):
            try:
                pipe_in, pipe_out = self._pipes(job)
                write_frame(pipe_in, order)
                return read_frame(pipe_out)
            except (EOFError, OSError):
                if self._job is not job:
                    return None
                with self._lock:
                    self._end()
        return FAILED + f"a worker died {_TRIES} times in a row; see its messages above".encode()

    def _pipes(self, job: object) -> tuple[BinaryIO, BinaryIO]:
        with self._lock:
            if self._job is not job:
                raise EOFError
            fresh = self._process is None
            if self._process is None:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    start_new_session=True,  # Ctrl-C is for the pool, which then stops its workers
                )
            pipe_in = cast(BinaryIO, self._process.stdin)
            pipe_out = cast(BinaryIO, self._process.stdout)
        if fresh and read_frame(pipe_out) != READY:
            raise EOFError
        return pipe_in, pipe_out

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):  # what was not yet written has no reader
                    cast(BinaryIO, pipe).close()
            self._process = None
