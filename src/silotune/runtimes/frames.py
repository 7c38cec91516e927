"""Frames: what crosses a pipe or a socket, and the byte that tells the kind of a message.

A frame is 8 bytes of length and a payload; the first byte of a payload is its kind.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import BinaryIO

TRAIN, SCORE = b"T", b"S"
"""Orders: train and give back an update; score at home."""

RESULT, WHOLE = b"R", b"W"
"""Answers: an update; the word that what the order leans on is not here, so send all of it."""


def write_frame(pipe: BinaryIO, payload: bytes) -> None:
    """Send a payload.

    Raises:
        EOFError: if this end of the pipe was closed.
        OSError: if the other end is gone.
    """
    with _open(pipe):
        pipe.write(len(payload).to_bytes(8, "big") + payload)
        pipe.flush()


def read_frame(pipe: BinaryIO) -> bytes:
    """The next payload.

    Raises:
        EOFError: if the pipe ends, or this end of it was closed.
    """
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
    """A pipe that was closed at this end meanwhile has ended like any other."""
    try:
        yield
    except ValueError as error:
        if not pipe.closed:
            raise
        raise EOFError("the pipe was closed") from error
