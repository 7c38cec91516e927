"""Keeps a command running: it is started again whenever it ends, until nobody wants it any more.

``python -m silotune_link.keep COMMAND...`` does so while its standard input is open. Whoever starts
it holds the other end, so that however they end nothing is left behind. With ``--once`` before the
command it ends as the command does.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from io import FileIO
from pathlib import Path
from types import FrameType
from typing import NoReturn

SHORTEST, LONGEST, GROWTH = 0.5, 30.0, 2.0
"""Seconds from an end to the next start; they grow by a factor while it ends at once."""

STEADY = 60.0
"""Seconds after which a command that ends did not end at once."""

GRACE = 5.0
"""Seconds that a command has to end in order, when it is told to."""


@contextlib.contextmanager
def kept(
    command: Sequence[str],
    log: Path | None = None,
    env: Mapping[str, str] | None = None,
    *,
    once: bool = False,
) -> Iterator[subprocess.Popen[bytes]]:
    """Inside, the command runs, in processes of their own.

    Args:
        command: starts it; it gets no input.
        log: what it says is added to this file; None = it says so where this process does.
        env: of its environment, where it differs.
        once: whether it is not started again, and this ends when it does.
    """
    words = ["--once", *command] if once else command
    out = None if log is None else os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "silotune_link.keep", *words],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            env={**os.environ, **(env or {})},
            start_new_session=True,  # Ctrl-C is for who started it, and ends it then
        )
    finally:
        if out is not None:
            os.close(out)
    with process:  # at the end its input is closed, and it is waited for
        yield process


def keep(command: Sequence[str], wanted: FileIO, *, once: bool = False) -> int:
    """Start the command, and again; end it, with all of its group, when the pipe closes.

    Returns:
        Its code, if it ended by itself and is not started again; 128 and the number of the signal
        that ended it.
    """
    events: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_follow, args=(wanted, events), daemon=True).start()
    pause = SHORTEST
    while True:
        began = time.monotonic()
        with _started(command) as child:
            threading.Thread(target=_wait, args=(child, events), daemon=True).start()
            if events.get() == "over":
                return 0
        code: int = child.returncode
        if once:
            return code if code >= 0 else 128 - code
        if time.monotonic() - began > STEADY:
            pause = SHORTEST
        print(
            f"{_name(command)} has ended (code {code}); it is started again",
            file=sys.stderr,
            flush=True,
        )
        with contextlib.suppress(queue.Empty):
            events.get(timeout=pause)
            return 0
        pause = min(pause * GROWTH, LONGEST)


@contextlib.contextmanager
def _started(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        yield child
    finally:
        _signal(child, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=GRACE)
        _signal(child, signal.SIGKILL)
        child.wait()


def _signal(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """To all of its group, whether or not the first of it is still there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


def _follow(wanted: FileIO, events: queue.SimpleQueue[str]) -> None:
    with contextlib.suppress(OSError):
        while wanted.read(1):
            pass
    events.put("over")


def _wait(child: subprocess.Popen[bytes], events: queue.SimpleQueue[str]) -> None:
    child.wait()
    events.put("ended")


def _name(command: Sequence[str]) -> str:
    """The module, if it is Python's."""
    words = list(command)
    return words[words.index("-m") + 1] if "-m" in words[:-1] else Path(words[0]).name


def main() -> None:
    """Until standard input closes, or SIGTERM; or the command ends, if it is to run once."""
    once = sys.argv[1:2] == ["--once"]
    command = sys.argv[2 if once else 1 :]
    if not command:
        sys.exit("usage: python -m silotune_link.keep [--once] COMMAND...")
    signal.signal(signal.SIGTERM, _end)
    try:
        with FileIO(0) as wanted:  # without a buffer, which would be locked at the end
            sys.exit(keep(command, wanted, once=once))
    except OSError as error:
        sys.exit(f"Error: {command[0]}: {error.strerror}")


def _end(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
