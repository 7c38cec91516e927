"""Signals: what asks a process to end is heard like Ctrl-C, so that its work ends in order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Terminated(KeyboardInterrupt):
    """A signal asked this process to end; whatever handles Ctrl-C handles it.

    Attributes:
        signal: which.
    """

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(self.signal.name)


@contextmanager
def heard() -> Iterator[None]:
    """Inside, a signal to end is raised as ``Terminated``, once; the next ones are not heard.

    A signal that somebody handles or ignores (``nohup``) is left to them; so are all of them where
    this is not the main thread, which alone hears signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = [number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL]

    def end(number: int, _: FrameType | None) -> NoReturn:
        for one in ours:
            signal.signal(one, signal.SIG_IGN)  # what is said and written of the first is not cut
        raise Terminated(number)

    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def how(interrupt: KeyboardInterrupt) -> str:
    """For a status: ``interrupted``, and by which signal."""
    by = f" by {interrupt.signal.name}" if isinstance(interrupt, Terminated) else ""
    return f"interrupted{by}"
