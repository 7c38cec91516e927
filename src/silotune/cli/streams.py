"""What a command says where nobody hears it: the words are given up, and the work goes on."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import TextIO


class Stream(TextIOWrapper):
    """A stream that can always be written to.

    Attributes:
        lost: why nothing of it arrives any more; empty while it does.
        left: whether it is because its reader has left, as ``| head`` does.
        before: the stream in whose place it is, which would close the file if it were forgotten.
    """

    lost = ""
    left = False
    before: TextIO | None = None

    def write(self, text: str, /) -> int:
        """Write, or give the stream up."""
        try:
            return super().write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        """Flush, or give the stream up."""
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """From now on everybody who writes there writes to nobody, whatever wrote it."""
        self.lost = error.strerror or type(error).__name__
        self.left = isinstance(error, BrokenPipeError)
        _to_nobody(self.fileno())


def replace_streams() -> Stream:
    """Make stdout and stderr such streams; gives stdout."""
    out = _stream(sys.stdout, 1)
    sys.stdout, sys.stderr = out, _stream(sys.stderr, 2)
    return out


def _stream(old: TextIO | None, number: int) -> Stream:
    if old is None:  # it was closed before we began, and no file of ours may get its number
        _to_nobody(number)
        return Stream(open(number, "wb", closefd=False), encoding="utf-8")
    old.flush()
    stream = Stream(
        old.buffer,
        encoding=old.encoding,
        errors=old.errors,
        line_buffering=old.isatty() or number == 2,
    )
    stream.before = old
    return stream


def _to_nobody(number: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    if null != number:
        os.dup2(null, number)
        os.close(null)
