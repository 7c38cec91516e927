"""Locks: a file that one process has at a time.

The kernel keeps a lock while its file is open, so whoever ends, however it ends, lets go of it;
what lies on the disk says nothing.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import BinaryIO


def locked(path: Path, *, wait: bool = False, mode: int = 0o666) -> BinaryIO:
    """The file, locked until it is closed; what is in it is left as it is.

    Args:
        path: of the file; made if it is not there.
        wait: until nobody has it, however long that takes.
        mode: of a file that is made.

    Raises:
        BlockingIOError: if somebody else has it, and one does not wait.
        OSError: if it cannot be made or locked.
    """
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, mode), "r+b", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file.fileno()).st_nlink:
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # whoever had it has removed it meanwhile, and it is no longer at its place


def is_locked(path: Path) -> bool:
    """Whether somebody has the file; one that may not be opened, or is not there, nobody has."""
    try:
        file = path.open("rb")
    except OSError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
