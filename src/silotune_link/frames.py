"""Frames: what crosses a pipe or a socket. A frame is 8 bytes of length and a payload.

The first byte of a payload is its kind. A head of JSON and a body are packed behind one another.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import BinaryIO, NoReturn

READY = b"+"
"""What a trainer says once, when its model is loaded."""

REFUSED = b"N"
"""The answer of who does not do what was ordered; its head has a ``code`` of a fixed list."""

LONGEST_FRAME = 1 << 36
"""Bytes. A longer one is none: something else has written into the pipe."""

LONGEST_HEAD = 1 << 20
"""Bytes."""

PART = 1 << 20
"""Bytes of a payload that are read at once, where it comes a part at a time."""


class TornMessage(ValueError):
    """Bytes are not a head and a body; the message says what is wrong, and repeats nothing."""


def write_frame(pipe: BinaryIO, payload: bytes) -> None:
    """Send a payload.

    Raises:
        EOFError: if this end of the pipe was closed.
        OSError: if the other end is gone.
    """
    write_parts(pipe, len(payload), [payload])  # by itself: not copied to stand behind its length


def read_frame(pipe: BinaryIO) -> bytes:
    """The next payload.

    Raises:
        EOFError: if the pipe ends, this end of it was closed, or what comes is no frame.
    """
    return _exactly(pipe, _size(pipe))


def write_parts(pipe: BinaryIO, size: int, parts: Iterable[bytes | memoryview]) -> None:
    """Send a payload of which one part at a time is in memory.

    Raises:
        EOFError: as ``write_frame``.
        OSError: as ``write_frame``.
    """
    with _open(pipe):
        pipe.write(size.to_bytes(8, "big"))
        for part in parts:
            pipe.write(part)
        pipe.flush()


def read_parts(pipe: BinaryIO) -> tuple[int, Iterator[bytes]]:
    """The size of the next payload, and its parts, all of which are to be taken.

    Raises:
        EOFError: as ``read_frame``; the parts too.
    """
    size = _size(pipe)
    return size, (_exactly(pipe, min(PART, size - at)) for at in range(0, size, PART))


def read_apart(
    pipe: BinaryIO, first: int, wanted: Callable[[bytes, int], bool]
) -> tuple[bytes, bytes] | None:
    """The first bytes of the next payload and the others, which are read if they are wanted.

    Args:
        pipe: to read from; after a payload that is not wanted it is of no use.
        first: how many are looked at before.
        wanted: takes those, or fewer where there are not as many, and how many others follow.

    Raises:
        EOFError: as ``read_frame``.
    """
    size = _size(pipe)
    head = _exactly(pipe, min(first, size))
    return (head, _exactly(pipe, size - len(head))) if wanted(head, size - len(head)) else None


def pack(head: Mapping[str, object], body: bytes = b"") -> bytes:
    """4 bytes of the head's length, the head as JSON, the body.

    Raises:
        ValueError: if the head is longer than ``LONGEST_HEAD``, or has a number that is not finite.
    """
    text = json.dumps(head, allow_nan=False).encode()
    if len(text) > LONGEST_HEAD:
        raise ValueError(f"a head has {len(text)} bytes; the limit is {LONGEST_HEAD}")
    return b"".join((len(text).to_bytes(4, "big"), text, body))


def unpack(blob: bytes) -> tuple[dict[str, object], bytes]:
    """What ``pack`` was given.

    Raises:
        TornMessage: if it is something else.
    """
    if len(blob) < 4:
        raise TornMessage(f"a message has {len(blob)} bytes; the length of its head alone takes 4")
    size = int.from_bytes(blob[:4], "big")
    if size > LONGEST_HEAD:
        raise TornMessage(f"a head would have {size} bytes; the limit is {LONGEST_HEAD}")
    if len(blob) < 4 + size:
        raise TornMessage(f"a head of {size} bytes ends after {len(blob) - 4}")
    try:
        head = json.loads(blob[4 : 4 + size], parse_constant=_not_finite)
    except (ValueError, RecursionError):
        raise TornMessage("a head is no JSON") from None
    if not isinstance(head, dict):
        raise TornMessage("a head is no JSON object")
    return head, blob[4 + size :]


def write_message(pipe: BinaryIO, head: Mapping[str, object], body: bytes = b"") -> None:
    """A packed head in a frame, its body in the next: so no body is copied to stand behind it.

    Raises:
        EOFError: as ``write_frame``.
        OSError: as ``write_frame``.
    """
    write_frame(pipe, pack(head))
    write_frame(pipe, body)


def read_message(pipe: BinaryIO) -> tuple[dict[str, object], bytes]:
    """The next head and its body.

    Raises:
        EOFError: as ``read_frame``, or if what comes is no message.
    """
    try:
        head, _ = unpack(read_frame(pipe))
    except TornMessage as error:
        raise EOFError(str(error)) from error
    return head, read_frame(pipe)


def _not_finite(_: str) -> NoReturn:
    raise ValueError


def _size(pipe: BinaryIO) -> int:
    size = int.from_bytes(_exactly(pipe, 8), "big")
    if size > LONGEST_FRAME:
        raise EOFError("what came through the pipe is no frame")
    return size


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
