"""Signing: a statement is a JSON object, and who has the key vouches for every field of it.

A statement begins with what it is for, so that a signature is one of nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE_BYTES = 64


def signature_of(key: Ed25519PrivateKey, statement: Mapping[str, object]) -> bytes:
    """A signature, of ``SIGNATURE_BYTES``.

    Args:
        key: whose signature it will be.
        statement: JSON values; its field ``purpose`` says what it is for.
    """
    return key.sign(_message(statement))


def holds(public: str, statement: Mapping[str, object], signature: bytes) -> bool:
    """Whether who has a key signed just this.

    Args:
        public: the key, as ``public_of`` gives it.
        statement: what is said to be signed.
        signature: whatever came.
    """
    try:
        _public(public).verify(signature, _message(statement))
    except (InvalidSignature, TypeError, ValueError):
        return False
    return True


def public_of(key: Ed25519PrivateKey) -> str:
    """The public key, 64 hexadecimal digits."""
    return key.public_key().public_bytes_raw().hex()


def as_public_key(text: object) -> str:
    """A public key as somebody gave it, in the form of ``public_of``.

    Raises:
        ValueError: if it is none.
    """
    try:
        return _public(str(text)).public_bytes_raw().hex()
    except ValueError as error:
        raise ValueError(f"key: {text!r} is no public key; give 64 hexadecimal digits") from error


def fingerprint(public: str) -> str:
    """A public key in 32 digits (128 bits of a SHA-256), to be read out and compared.

    Args:
        public: as ``public_of`` gives it.
    """
    digits = hashlib.sha256(b"silotune fingerprint 1 " + bytes.fromhex(public)).hexdigest()
    return " ".join(digits[i : i + 4] for i in range(0, 32, 4))


def _public(text: str) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(text))


def _message(statement: Mapping[str, object]) -> bytes:
    return json.dumps(statement, sort_keys=True).encode()
