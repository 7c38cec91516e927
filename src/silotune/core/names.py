"""Names that arrive from outside: of runs, clients, contents and times. One rule each.

A name becomes a part of a path, so it must be one that no file system takes for anything else.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from datetime import datetime
from fnmatch import fnmatchcase

LONGEST_NAME = 100
"""Bytes of a client's name, of the 255 that a file system gives."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_RESERVED = set('/\\:*?"<>|')


def is_run_name(name: object) -> bool:
    """Whether it is one to 64 letters, digits, ``-`` and ``_``, and begins with none of the last.

    Args:
        name: of any type.
    """
    return isinstance(name, str) and _RUN.fullmatch(name) is not None


def is_digest(text: object) -> bool:
    """Whether it is a SHA-256 as hexadecimal digits, in small letters.

    Args:
        text: of any type.
    """
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def is_time(text: object) -> bool:
    """Whether it is a time in ISO 8601, with its zone and to the second.

    Args:
        text: of any type.
    """
    if not isinstance(text, str) or len(text) > 40:
        return False
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def is_client_name(name: object) -> bool:
    """Whether a folder can have the name on every file system, and people can tell it from others.

    Args:
        name: of any type.
    """
    return (
        isinstance(name, str)
        and bool(name)
        and name.isprintable()  # what cannot be encoded is not
        and name[0] != "."
        and name == name.strip()
        and not set(name) & _RESERVED
        and len(name.encode()) <= LONGEST_NAME
    )


def rank_name(client: str, given: Iterable[str]) -> str | None:
    """Which of these names is the client's: its own, or the longest pattern of ``*`` and ``?``.

    Args:
        client: a name that holds neither.
        given: names and patterns; of equally long ones the first of the alphabet counts.

    Returns:
        None where none is.
    """
    names = list(given)
    if client in names:
        return client
    patterns = sorted((n for n in names if set(n) & set("*?")), key=lambda n: (-len(n), n))
    return next((name for name in patterns if fnmatchcase(client, name)), None)


def case_twins(names: Iterable[str]) -> tuple[str, str] | None:
    """Two names, if any, that differ in case only, or in how their letters are encoded.

    Args:
        names: each once.
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(unicodedata.normalize("NFKC", name).casefold(), name)
        if other != name:
            return other, name
    return None
