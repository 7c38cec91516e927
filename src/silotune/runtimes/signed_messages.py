"""Signed messages: as signed files are, and checked before their content is read.

    8 bytes         a number, big-endian
    8 bytes         the size of the content
    32 bytes        the SHA-256 of the content
    64 bytes        the signature (Ed25519) of these three, and of what the message is about
    the rest        the content

So whoever reads one from a pipe takes no more into memory than the other party has signed.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from typing import BinaryIO, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from silotune.keys import holds, signature_of
from silotune.keys.signing import SIGNATURE_BYTES
from silotune_link.frames import read_apart

from .signed_files import Signed

_HEAD = struct.Struct(f">QQ32s{SIGNATURE_BYTES}s")


class _Head(NamedTuple):
    """What stands before the content."""

    number: int
    size: int
    digest: bytes
    signature: bytes


def sealed(key: Ed25519PrivateKey, about: Mapping[str, str], number: int, content: bytes) -> bytes:
    """A message as it is sent.

    Args:
        key: the writer's.
        about: what it is for, whose it is, and what it answers.
        number: not negative, below 2^64.
        content: the rest.
    """
    head = _Head(number, len(content), hashlib.sha256(content).digest(), b"")
    signature = signature_of(key, _statement(about, head))
    return _HEAD.pack(*head._replace(signature=signature)) + content


def unsealed(message: bytes, public: str, about: Mapping[str, str]) -> Signed | None:
    """What a message holds; None if it is not signed.

    Args:
        message: as it came.
        public: the key that must have signed it.
        about: what it must be about.
    """
    head, content = message[: _HEAD.size], message[_HEAD.size :]
    if not _is_signed(head, len(content), public, about):
        return None
    return _opened(head, content)


def read_sealed(pipe: BinaryIO, public: str, about: Mapping[str, str]) -> Signed | None:
    """The same of the next frame of a pipe; of one that is not signed the content is not read.

    Raises:
        EOFError: if the pipe ends, or what comes is no frame.
    """
    found = read_apart(pipe, _HEAD.size, lambda head, size: _is_signed(head, size, public, about))
    return None if found is None else _opened(*found)


def _is_signed(data: bytes, size: int, public: str, about: Mapping[str, str]) -> bool:
    """Whether a head is signed, and of a content of this size."""
    if len(data) < _HEAD.size:
        return False
    head = _Head(*_HEAD.unpack(data))
    return head.size == size and holds(public, _statement(about, head), head.signature)


def _opened(data: bytes, content: bytes) -> Signed | None:
    head = _Head(*_HEAD.unpack(data))
    if hashlib.sha256(content).digest() != head.digest:
        return None
    return Signed(head.number, head.digest.hex(), content)


def _statement(about: Mapping[str, str], head: _Head) -> dict[str, object]:
    return {**about, "number": head.number, "size": head.size, "content": head.digest.hex()}
