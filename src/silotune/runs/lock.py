"""The lock of a run's folder: one process writes there, and others are told who."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import BinaryIO

from silotune.core.files import RecordError, in_words
from silotune.core.locks import is_locked, locked

from .folder import RunFolder

_PATIENCE = 0.5
"""Seconds for which one asks again: who only looks whether there is a lock has it for a moment."""


class FolderInUse(RecordError):
    """Another process writes into the folder; the message says which."""


@contextmanager
def held(folder: RunFolder) -> Iterator[None]:
    """Inside, no other process runs in this folder, which is made; removed if it stays empty.

    Raises:
        FolderInUse: naming who runs there.
        RecordError: if the folder cannot be made or written.
    """
    made = not folder.path.exists()
    with in_words(folder.path):
        folder.path.mkdir(parents=True, exist_ok=True)
        try:
            file = _locked(folder)
        except BlockingIOError as error:
            raise FolderInUse(_told(folder)) from error
    try:
        with in_words(folder.lock):
            os.truncate(file.fileno(), 0)
            os.write(file.fileno(), json.dumps(_holder()).encode())
        yield
    finally:
        folder.lock.unlink(missing_ok=True)  # while it is ours, so that nobody else's is removed
        file.close()
        if made:
            with suppress(OSError):  # something was begun
                folder.path.rmdir()


def refuse_while_written(folder: RunFolder) -> None:
    """Read no result while a run writes it.

    Raises:
        FolderInUse: naming who runs there.
    """
    if is_locked(folder.lock):
        raise FolderInUse(_told(folder))


def _locked(folder: RunFolder) -> BinaryIO:
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            return locked(folder.lock)
        except BlockingIOError:
            if time.monotonic() > end:
                raise
            time.sleep(_PATIENCE / 10)


def _holder() -> dict[str, object]:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": platform.node(), "since": since}


def _told(folder: RunFolder) -> str:
    try:
        who = json.loads(folder.lock.read_bytes())
        text = f"process {who['pid']} on {who['host']}, since {who['since']}"
        mine = who == {**_holder(), "since": who["since"]}
    except (OSError, ValueError, KeyError, TypeError):
        text, mine = "another process, which has not yet said which", False
    cure = "close its rounds() first" if mine else "wait until it ends, or stop it"
    return (
        f"folder: a run is going on in {folder.path} ({text}{', this program' if mine else ''}); "
        f"{cure}, or choose another folder (--output-dir)"
    )
