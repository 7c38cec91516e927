"""A process that answers orders, one at a time, and is started again when it dies.

It is any command that says ``READY`` on its standard output and then answers every frame of its
standard input with a frame. Delivery is at least once: whoever dies at an order is given it again.
Before that each one may be told what it needs, as soon as that is known.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from .frames import READY, read_frame, write_frame

TRIES = 3
"""Deaths in a row at one order; then it is given up."""

T = TypeVar("T")

_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND


class ProcessDied(RuntimeError):
    """A process died at every try."""


class ProcessStopped(ProcessDied):
    """A process was stopped for good."""


def known(frame: bytes) -> Future[bytes]:
    """A frame that nobody has to wait for."""
    told: Future[bytes] = Future()
    told.set_result(frame)
    return told


class Process:
    """Nothing is started before it is needed.

    Args:
        command: starts it.
        log: a file that its standard error is added to; that of this process if there is none.
        told: frames that each one gets as it starts, before it says that it is ready. One that is
            not known yet is waited for; if it is cancelled, so is the start.
    """

    def __init__(
        self, command: Sequence[str], log: Path | None = None, told: Sequence[Future[bytes]] = ()
    ) -> None:
        self._command, self._log, self._told = list(command), log, tuple(told)
        self._turn = threading.Lock()  # of whoever asks
        self._guard = threading.Lock()  # of the fields below
        self._child: subprocess.Popen[bytes] | None = None
        self._stopped = False

    @property
    def pid(self) -> int | None:
        """Of the one that runs now."""
        child = self._child
        return None if child is None else child.pid

    def warm(self) -> None:
        """Start it before the first order; what fails here is tried again with that."""
        with self._turn, contextlib.suppress(ProcessStopped):
            try:
                self._pipes()
            except (EOFError, OSError, CancelledError):
                self._end()

    def ask(self, order: bytes) -> bytes:
        """The answer to one order.

        Raises:
            ProcessDied: as ``talk``.
            ProcessStopped: as ``talk``.
        """
        return self.talk(lambda pipe: write_frame(pipe, order), read_frame)

    def talk(self, send: Callable[[BinaryIO], None], receive: Callable[[BinaryIO], T]) -> T:
        """The answer to one order, for who does not hold either in memory.

        Args:
            send: writes the order as a frame; once more if the process dies.
            receive: reads the next frame.

        Raises:
            ProcessDied: if it died at every try.
            ProcessStopped: if it was stopped meanwhile, or before.
        """
        with self._turn:
            for _ in range(TRIES):
                try:
                    pipe_in, pipe_out = self._pipes()
                    send(pipe_in)
                    return receive(pipe_out)
                except (EOFError, OSError, MemoryError) as error:
                    last = error
                    self._end()
        if self._stopped:
            raise ProcessStopped("it was stopped")
        raise ProcessDied(f"it died {TRIES} times in a row ({last})")

    def stop(self) -> None:
        """End it at once, and for good. Whoever waits for an answer gets ``ProcessStopped``."""
        with self._guard:
            self._stopped = True
        self._end()

    def _pipes(self) -> tuple[BinaryIO, BinaryIO]:
        with self._guard:
            if self._stopped:
                raise ProcessStopped("it was stopped")
            fresh = self._child is None
            child = self._child = self._child or self._started()
        pipe_in, pipe_out = cast(BinaryIO, child.stdin), cast(BinaryIO, child.stdout)
        if fresh:
            for told in self._told:
                write_frame(pipe_in, told.result())
            if read_frame(pipe_out) != READY:
                raise EOFError("a process did not say that it is ready")
        return pipe_in, pipe_out

    def _started(self) -> subprocess.Popen[bytes]:
        log = None if self._log is None else os.open(self._log, _APPEND, 0o600)
        try:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for who started it, and ends it then
            )
        finally:
            if log is not None:
                os.close(log)

    def _end(self) -> None:
        with self._guard:
            child, self._child = self._child, None
            if child is None:
                return
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # with all that it started
            child.wait()
            for pipe in (child.stdin, child.stdout):
                with contextlib.suppress(OSError):  # what was not yet written has no reader
                    cast(BinaryIO, pipe).close()
