"""Held: one process answers for a site at a time, and others are told which."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

from silotune.core.files import RecordError, in_words, json_text, read_json
from silotune.core.locks import locked
from silotune.privacy.ledger.private_files import make_private

from .home import Home, now


@contextmanager
def held(home: Home) -> Iterator[None]:
    """Inside, nobody else answers orders from this home, which is made if it is not there.

    Raises:
        RecordError: naming who does, or if the home cannot be written.
    """
    lock = home.path / "lock"
    with in_words(home.path):
        make_private(home.path)
        try:
            file = locked(lock, mode=0o600)
        except BlockingIOError as error:
            raise RecordError(
                f"{home.path}: {_holder(home)} answers for this site; stop it first"
            ) from error
    with file:
        who = {"pid": os.getpid(), "host": platform.node(), "since": now()}
        with in_words(lock):
            os.truncate(file.fileno(), 0)
            os.write(file.fileno(), json_text(who).encode())
        yield


def _holder(home: Home) -> str:
    try:
        who = read_json(home.path / "lock")
        return f"process {who['pid']} on {who['host']}, since {who['since']},"
    except (ValueError, KeyError, TypeError):
        return "another process"
