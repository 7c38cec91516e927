"""Payload: what a frame carries, a little of it in memory, and much in a file without a name.

So a daemon that carries large ones stays small. Nobody else can open such a file, and it is gone
when nothing uses it any more, however its process ends.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .frames import PART, read_parts, write_parts

IN_MEMORY = 1 << 18
"""Bytes of a payload that needs no file."""


class Payload:
    """Bytes, read from a pipe a part at a time.

    Args:
        pipe: its next frame is taken.
        folder: of the file, which its owner alone can open; on a disk with room.

    Attributes:
        digest: SHA-256.
        kind: the first byte; empty if there is none.

    Raises:
        EOFError: as ``frames.read_frame``.
        OSError: if the other end of the pipe is gone, or the disk is full.
    """

    def __init__(self, pipe: BinaryIO, folder: Path) -> None:
        self._file: BinaryIO | None = None
        self._data = bytearray()
        self._size, parts = read_parts(pipe)
        if self._size > IN_MEMORY:
            self._file = _nameless(folder)
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
            if self._file is None:
                self._data += part
            else:
                self._file.write(part)
        if self._file is not None:
            self._file.flush()
        self.digest = digest.hexdigest()
        self.kind = next(self._parts(), b"")[:1]

    def send(self, pipe: BinaryIO) -> None:
        """As a frame; any number of threads may do so at once.

        Raises:
            EOFError: as ``frames.write_frame``.
            OSError: as ``frames.write_frame``.
        """
        write_parts(pipe, self._size, self._parts())

    def _parts(self) -> Iterator[bytes]:
        if self._file is None:
            yield bytes(self._data)
            return
        for start in range(0, self._size, PART):
            yield os.pread(self._file.fileno(), PART, start)

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()


def _nameless(folder: Path) -> BinaryIO:
    """A file that has no name any more."""
    path = folder / f".{os.urandom(8).hex()}"
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    path.unlink()
    return open(file, "wb")
