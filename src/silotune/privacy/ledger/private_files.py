"""Files and folders for their owner alone, that are on the disk when a call returns."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path


def make_private(folder: Path) -> None:
    """Create a folder and those above it, durably, for their owner alone."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not folder.is_dir():
        make_private(folder.parent)
        folder.mkdir(0o700, exist_ok=True)
        sync(folder.parent)


def write_private(path: Path, content: bytes) -> None:
    """Create a file whole, durably, for its owner alone."""
    write_whole(path, (content,), draft=f".{path.name}.tmp", mode=0o600)


def write_whole(path: Path, parts: Iterable[bytes], *, draft: str, mode: int) -> None:
    """Put a file in place whole, durably, even where others may write: no link is followed.

    Args:
        path: what is there is replaced.
        parts: what it will hold, one after the other.
        draft: name of the file beside it that is written first; one that is there is removed.
        mode: of the new file.
    """
    place = path.with_name(draft)
    place.unlink(missing_ok=True)
    handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(handle, "wb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(handle)
    os.replace(place, path)
    sync(path.parent)


def sync(folder: Path) -> None:
    """Make new names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
