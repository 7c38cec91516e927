"""Pool: worker processes on this machine; tasks and results cross as bytes over pipes.

A worker is any command that calls ``serve``. It holds its own copy of the model and the silos'
data, dies when the pool does, and is started again when it dies alone: its task is then sent once
more, so delivery is at least once. Nothing but ``core.serialization`` bytes crosses; no pickle. A
worker keeps the tasks of the last rounds, so that only what is new is sent to it. Another run, or
an earlier round, is taken for another federation: all of it is sent again.

A frame is 8 bytes of length and the payload; the first byte of a payload tells its kind.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import BinaryIO, cast

from silotune.core import (
    ClientId,
    ClientTask,
    ClientUpdate,
    CorruptPayload,
    decode_result,
    decode_task,
    encode_result,
    encode_task,
)
from silotune.engine import Client, LocalTrainer, client_round, score_at_home

_READY, _TRAIN, _SCORE, _RESULT, _ERROR = b"+", b"T", b"S", b"R", b"!"
_TRIES = 3


class WorkerError(RuntimeError):
    """A worker could not start, or failed at its task; the message is the worker's own."""


class Pool:
    """Clients spread over worker processes. Use it as a context manager."""

    def __init__(
        self,
        command: Sequence[str],
        clients: Sequence[ClientId],
        workers: int = 2,
        deadline: float = 3600.0,
    ) -> None:
        """Nothing is started before the first round.

        Args:
            command: starts one worker, which calls ``serve``.
            clients: all silos; every worker can act for any of them.
            workers: how many processes.
            deadline: seconds that a round may take; who has not answered then is missing.
        """
        self._command = list(command)
        self._clients = sorted(clients)
        self._slots = [_Slot(self._command) for _ in range(min(workers, len(clients)))]
        self._deadline = deadline
        self._latest: tuple[str, int] = "", 0  # run and round of the last tasks

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

    def clients(self) -> Sequence[ClientId]:
        """All silos, by name."""
        return self._clients

    def train(self, tasks: Sequence[ClientTask]) -> Iterator[ClientUpdate]:
        """Results as they come.

        Raises:
            WorkerError: if a worker reports that its task failed.
        """
        return self._results(_TRAIN, tasks)

    def evaluate(self, tasks: Sequence[ClientTask]) -> Sequence[ClientUpdate]:
        """Each silo scores at home; a noisy score comes back, or the word that it is done."""
        return list(self._results(_SCORE, tasks))

    def _results(self, kind: bytes, tasks: Sequence[ClientTask]) -> Iterator[ClientUpdate]:
        for reply in self._exchange([(kind, task) for task in tasks]):
            try:
                yield decode_result(reply)
            except CorruptPayload:
                continue  # as good as lost: the loop names the client as missing

    def _exchange(self, orders: Sequence[_Order]) -> Iterator[bytes]:
        """Hand orders to whoever is free; yields one reply each until the deadline."""
        todo: queue.SimpleQueue[_Order] = queue.SimpleQueue()
        done: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        for kind, task in orders:
            self._follow(task)
            todo.put((kind, task))
        for slot in self._slots:
            threading.Thread(target=slot.work, args=(todo, done), daemon=True).start()
        end = time.monotonic() + self._deadline
        for _ in orders:
            try:
                reply = done.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                self._abandon(todo)
                return
            if reply[:1] == _ERROR:
                self._abandon(todo)
                raise WorkerError(reply[1:].decode())
            yield reply[1:]

    def _follow(self, task: ClientTask) -> None:
        """Another federation's rounds may have the same names: what was sent for it is no help."""
        run, round = self._latest
        if task.run != run or task.round < round:
            for slot in self._slots:
                slot.begin()
        self._latest = task.run, task.round

    def _abandon(self, todo: queue.SimpleQueue[_Order]) -> None:
        """Forget what was not begun and stop what was not finished."""
        while not todo.empty():
            todo.get()
        for slot in self._slots:
            slot.kill()


_Order = tuple[bytes, ClientTask]
_Place = tuple[str, int, int | None]
"""Run, round and rank: tasks of one place have the same state in them."""


def _place(task: ClientTask, round: int) -> _Place:
    return task.run, round, task.rank


def _still_held(places: Iterable[_Place], task: ClientTask) -> set[_Place]:
    """What a worker keeps when it is given this task; both ends must count alike."""
    return {place for place in places if place[1] >= task.round - 1}


class _Slot:
    """A place for one worker; starts it when needed and again when it dies."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._job: object | None = None  # what this slot works for now; None once stopped
        self._sent: set[_Place] = set()  # what its worker has been given

    def begin(self) -> None:
        """Lean on nothing that its worker was given before."""
        self._sent = set()

    def kill(self) -> None:
        """Stop the worker at once."""
        with self._lock:
            self._job = None
            self._end()

    def work(self, todo: queue.SimpleQueue[_Order], done: queue.SimpleQueue[bytes]) -> None:
        """Carry orders until none is left."""
        self._job = job = object()
        while True:
            try:
                order = todo.get_nowait()
            except queue.Empty:
                return
            reply = self._ask(order, job)
            if reply is None:
                return
            done.put(reply)

    def _ask(self, order: _Order, job: object) -> bytes | None:
        """One reply; a worker that dies is replaced, a few times. None once stopped."""
        kind, task = order
        for _ in range(_TRIES):
            try:
                pipe_in, pipe_out = self._pipes(job)
                held = _place(task, task.round - 1) in self._sent
                self._sent = _still_held(self._sent, task) | {_place(task, task.round)}
                _write_frame(pipe_in, kind + encode_task(task, held=held))
                return _read_frame(pipe_out)
            except (EOFError, OSError):
                if self._job is not job:
                    return None
                self._forget()
        return _ERROR + f"a worker died {_TRIES} times in a row; see its messages above".encode()

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
        if fresh and _read_frame(pipe_out) != _READY:
            raise EOFError
        return pipe_in, pipe_out

    def _forget(self) -> None:
        with self._lock:
            self._end()

    def _end(self) -> None:
        self._sent.clear()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):  # what was not yet written has no reader
                    cast(BinaryIO, pipe).close()
            self._process = None


def serve(
    trainer: LocalTrainer, silos: Mapping[ClientId, Client], pipe_in: BinaryIO, pipe_out: BinaryIO
) -> None:
    """A worker's life: answer tasks until the pipe closes, then die without finishing."""
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    tasks: dict[_Place, ClientTask] = {}
    threading.Thread(target=_listen, args=(pipe_in, inbox), daemon=True).start()
    _write_frame(pipe_out, _READY)
    while True:
        payload = inbox.get()
        _write_frame(pipe_out, _answer(payload, trainer, silos, tasks))


def _answer(
    payload: bytes,
    trainer: LocalTrainer,
    silos: Mapping[ClientId, Client],
    tasks: dict[_Place, ClientTask],
) -> bytes:
    """One reply; remembers the task among ``tasks``, and forgets those of older rounds."""
    try:
        task = decode_task(payload[1:], lambda *place: tasks.get(place))
        for place in tasks.keys() - _still_held(tasks, task):
            del tasks[place]
        tasks[_place(task, task.round)] = task
        if task.client not in silos:
            raise ValueError("a task is for a client that this worker does not act for")
        act = score_at_home if payload[:1] == _SCORE else client_round
        return _RESULT + encode_result(act(task, trainer, silos[task.client]))
    except (ValueError, OSError, RuntimeError) as error:
        return _ERROR + str(error).encode()  # nothing of a private silo's: those do not raise


def _listen(pipe: BinaryIO, inbox: queue.SimpleQueue[bytes]) -> None:
    """Read frames; when the pool is gone, nobody wants this work any more."""
    try:
        while True:
            inbox.put(_read_frame(pipe))
    except (EOFError, OSError):
        os._exit(0)


def _write_frame(pipe: BinaryIO, payload: bytes) -> None:
    with _open(pipe):
        pipe.write(len(payload).to_bytes(8, "big") + payload)
        pipe.flush()


def _read_frame(pipe: BinaryIO) -> bytes:
    size = int.from_bytes(_exactly(pipe, 8), "big")
    return _exactly(pipe, size)


def _exactly(pipe: BinaryIO, size: int) -> bytes:
    with _open(pipe):
        data = pipe.read(size)
    if data is None or len(data) < size:
        raise EOFError("the pipe closed")
    return data


@contextlib.contextmanager
def _open(pipe: BinaryIO) -> Iterator[None]:
    """A pipe that the pool has closed meanwhile, as it was stopped, has ended like any other."""
    try:
        yield
    except ValueError as error:
        if not pipe.closed:
            raise
        raise EOFError("the pipe was closed") from error
