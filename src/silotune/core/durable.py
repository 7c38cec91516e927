"""Durable: what is written, and when it is on the disk.

Whoever writes for one waits for the disk at each step. Whoever writes for many, as a simulation
does for the clients of a crowd, goes on with all of them to the next step that must wait, and waits
once: such a step gives out what it waits for (``Written``), and goes on when that is on the disk.
What may be done after a step is the same either way.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

AT_ONCE = 16
"""Files that are brought to the disk at a time: file systems make one write of several."""


@dataclass(frozen=True)
class Written:
    """Files, and folders with new names, that must be on the disk before anything goes on."""

    paths: tuple[Path, ...]


Writing = Generator[Written, None, T]
"""Steps of which each is taken once what the one before it wrote is on the disk."""


def settled(writing: Writing[T]) -> T:
    """Take all steps, waiting for the disk at each; gives what they come to.

    Raises:
        RecordError: as the steps do.
    """
    try:
        written = next(writing)
        while True:
            try:
                settle(written)
            except OSError as error:
                written = writing.throw(error)
            else:
                written = next(writing)
    except StopIteration as done:
        found: T = done.value
        return found


def settle(written: Written) -> None:
    """Wait until it is on the disk.

    Raises:
        OSError: if it cannot be brought there.
    """
    for path in written.paths:
        if path.is_dir():
            sync_names(path)
            continue
        descriptor = os.open(path, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def settle_all(each: Sequence[Written]) -> list[OSError | None]:
    """The same of many at once; of each, what kept it from the disk."""
    found: list[OSError | None] = [None] * len(each)

    def some(first: int) -> None:
        for place in range(first, len(each), AT_ONCE):
            try:
                settle(each[place])
            except OSError as error:
                found[place] = error

    shares = range(min(AT_ONCE, len(each)))
    if len(shares) < 2:
        some(0)
    else:
        with ThreadPoolExecutor(len(shares)) as threads:
            list(threads.map(some, shares))
    return found


def sync_names(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    if os.name == "posix":  # elsewhere a folder cannot be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
