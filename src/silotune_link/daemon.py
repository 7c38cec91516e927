"""A site's daemon: keeps one trainer alive, and answers whoever brings an order to its socket.

What carries orders (an engine's process, a watcher of a folder) is only a way to this socket. When
it dies the order goes on, and its answer waits here for the same order to come again.

``python -m silotune_link.daemon SOCKET LOG COMMAND...`` is one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import FrameType
from typing import BinaryIO, NoReturn

from .frames import REFUSED, pack, read_frame, write_frame
from .payload import Payload
from .process import Process, ProcessDied, ProcessStopped

KEPT = 4
"""Answers that wait; large ones on the disk (``payload``)."""

FAILED = REFUSED + pack({"code": "failed"})
"""The answer where a trainer died at every try."""

_LONGEST_PATH = 103
"""Bytes of a socket's path that every system takes."""


class Daemon:
    """One order is worked on at a time, and the same order once.

    Args:
        socket_path: where it listens, in a folder that the site's user alone can enter, on a disk
            with room for the last few answers.
        command: starts the trainer (``silotune_link.process``).
        log: what the trainer says.

    Raises:
        ValueError: if the path is longer than sockets can have.
    """

    def __init__(self, socket_path: Path, command: Sequence[str], log: Path) -> None:
        check_path(socket_path)
        self._path = socket_path
        self._trainer = Process(command, log)
        self._lock = threading.Lock()
        self._working: dict[str, Future[Payload | None]] = {}
        self._answers: OrderedDict[str, Payload] = OrderedDict()

    def answer(self, order: Payload) -> Payload | None:
        """The trainer's, or None if it died at every try. No refusal is kept.

        Raises:
            ProcessStopped: if the daemon ends meanwhile; the order is to be brought again.
        """
        with self._lock:
            if order.digest in self._answers:
                return self._answers[order.digest]
            future = self._working.get(order.digest)
            mine = future is None
            if future is None:
                future = self._working[order.digest] = Future()
        if mine:
            try:
                future.set_result(self._worked(order))
            except ProcessStopped as error:
                future.set_exception(error)
        return future.result()

    def _worked(self, order: Payload) -> Payload | None:
        try:
            answer = self._trainer.talk(order.send, self._read)
        except ProcessStopped:
            raise
        except ProcessDied as error:
            print(f"the trainer: {error}", file=sys.stderr, flush=True)
            answer = None
        with self._lock:
            del self._working[order.digest]
            if answer is not None and answer.kind != REFUSED:  # another time it may do better
                self._answers[order.digest] = answer
            while len(self._answers) > KEPT:
                self._answers.popitem(last=False)
        return answer

    def _read(self, pipe: BinaryIO) -> Payload:
        return Payload(pipe, self._path.parent)

    def serve(self) -> None:
        """Listen until this process is interrupted; the trainer ends with it.

        Raises:
            OSError: if another daemon has this socket, or something that is none lies there.
        """
        with _alone(self._path), listening(self._path) as listener:
            threading.Thread(target=self._trainer.warm, daemon=True).start()
            try:
                while True:
                    link, _ = listener.accept()
                    threading.Thread(target=self._talk, args=(link,), daemon=True).start()
            finally:
                self._trainer.stop()

    def _talk(self, link: socket.socket) -> None:
        """Until the other end has no more orders, or brings what is none."""
        over = contextlib.suppress(EOFError, OSError, MemoryError, ProcessStopped)
        with over, link, link.makefile("rb") as orders, link.makefile("wb") as answers:
            while True:
                answer = self.answer(self._read(orders))
                if answer is None:
                    write_frame(answers, FAILED)
                else:
                    answer.send(answers)


def ask(socket_path: Path, order: bytes) -> bytes:
    """Bring one order to a daemon; wait for its answer, however long it takes.

    Raises:
        ConnectionError: if no daemon is there, or it ended before it answered.
        ValueError: if the path is longer than sockets can have.
    """
    check_path(socket_path)
    with socket.socket(socket.AF_UNIX) as link:
        try:
            link.connect(str(socket_path))
            with link.makefile("wb") as orders, link.makefile("rb") as answers:
                write_frame(orders, order)
                return read_frame(answers)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise ConnectionError(f"no daemon listens at {socket_path}; start it") from error
        except (EOFError, OSError) as error:
            raise ConnectionError(f"the daemon at {socket_path} gave no answer") from error


def check_path(path: Path) -> None:
    """Whether a socket can have this path.

    Raises:
        ValueError: if it is too long.
    """
    size = len(os.fsencode(path))
    if size > _LONGEST_PATH:
        raise ValueError(
            f"{path}: a socket's path has {_LONGEST_PATH} bytes at most, this one {size}; "
            "take a folder that is nearer to the root"
        )


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """No other daemon has this socket while this one has its lock."""
    lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OSError(f"another daemon serves {path}; stop that one first") from error
    else:
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def listening(path: Path, mode: int = 0o600) -> Iterator[socket.socket]:
    """A socket, by default for this user alone; that of a process which was killed is taken away.

    Raises:
        OSError: if none can be made there.
    """
    if path.is_socket():
        path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        before = os.umask(0o777 & ~mode)
        try:
            listener.bind(str(path))
        except OSError as error:
            raise OSError(f"{path}: no socket can be made here ({error.strerror})") from error
        finally:
            os.umask(before)
        try:
            listener.listen()
            yield listener
        finally:
            path.unlink(missing_ok=True)


def main() -> None:
    """Serve until Ctrl-C or SIGTERM."""
    if len(sys.argv) < 4:
        sys.exit("usage: python -m silotune_link.daemon SOCKET LOG COMMAND...")
    place, log, *command = sys.argv[1:]
    signal.signal(signal.SIGTERM, _end)
    try:
        Daemon(Path(place), command, Path(log)).serve()
    except KeyboardInterrupt:
        sys.exit(130)
    except (OSError, ValueError) as error:
        sys.exit(f"Error: {error}")


def _end(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
