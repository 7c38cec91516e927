"""Signed files: what two parties hand each other past others, who may alter it.

    8 bytes         a number, big-endian
    64 bytes        the signature (Ed25519)
    the rest        the content

Signed are the number, the SHA-256 of the content, and what the file is about: what it is for, whose
it is, and what it answers. So whatever was moved, altered or cut short is not signed, and what is
not signed is not there. No link is followed.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from silotune.core.files import in_words
from silotune.keys import holds, signature_of
from silotune.keys.signing import SIGNATURE_BYTES
from silotune.privacy.ledger.private_files import write_whole

_NUMBER_BYTES = 8
_HEAD = _NUMBER_BYTES + SIGNATURE_BYTES


class Signed(NamedTuple):
    """What a signed file, or message, holds."""

    number: int
    digest: str
    content: bytes


def digest_of(content: bytes) -> str:
    """SHA-256, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def write_signed(
    path: Path, key: Ed25519PrivateKey, about: Mapping[str, str], number: int, content: bytes
) -> None:
    """Put a signed file in place, whole. A folder has one writer at a time.

    Args:
        path: in a folder that is there.
        key: the writer's.
        about: what the file is for, whose it is, and what it answers.
        number: not negative.
        content: the rest.

    Raises:
        RecordError: if it cannot be written.
    """
    head = _head(key, about, number, content)
    with in_words(path):
        write_whole(path, (head, content), draft=".draft", mode=0o666)


class Reader:
    """Reads signed files; notes what is not signed, once, and leaves it alone."""

    def __init__(self, note: Callable[[str], object]) -> None:
        """Nothing is read yet.

        Args:
            note: is told the names of files that count as absent, and why; never what is in them.
        """
        self._note = note
        self._left_alone: dict[Path, object] = {}

    def read(self, path: Path, public: str, about: Mapping[str, str]) -> Signed | None:
        """A file that is signed; None if there is none.

        It is held in memory only once its signature was found to hold.

        Args:
            path: of the file.
            public: the key that must have signed it.
            about: what it must be about.
        """
        try:
            seen = state_of(path.lstat())
            return None if self._left_alone.get(path) == seen else _read(path, public, about)
        except FileNotFoundError:
            return None
        except _NotSigned as error:
            self._left_alone[path] = seen
            self._note(f"{path}: {error}; left alone")
        except OSError as error:  # may pass, so it is looked at again
            if self._left_alone.get(path) != error.errno:
                self._left_alone[path] = error.errno
                self._note(f"{path}: {error.strerror or type(error).__name__}; left alone")
        return None


class _NotSigned(Exception):
    """The message says why a file is none that somebody signed."""


def _read(path: Path, public: str, about: Mapping[str, str]) -> Signed:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise _NotSigned("is no file")
        head = file.read(_HEAD)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        number, signature = _parts(head)
        if not holds(public, _statement(about, number, digest), signature):
            raise _NotSigned("is not signed by whom it should be from")
        file.seek(_HEAD)
        content = file.read()
    if digest_of(content) != digest:
        raise _NotSigned("was changed while it was read")
    return Signed(number, digest, content)


def state_of(found: os.stat_result) -> tuple[int, ...]:
    """What changes with a file."""
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _head(key: Ed25519PrivateKey, about: Mapping[str, str], number: int, content: bytes) -> bytes:
    signature = signature_of(key, _statement(about, number, digest_of(content)))
    return number.to_bytes(_NUMBER_BYTES, "big") + signature


def _parts(head: bytes) -> tuple[int, bytes]:
    return int.from_bytes(head[:_NUMBER_BYTES], "big"), head[_NUMBER_BYTES:]


def _statement(about: Mapping[str, str], number: int, digest: str) -> dict[str, object]:
    return {**about, "number": number, "content": digest}
