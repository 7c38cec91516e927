"""Letters: short signed files that parties hand each other, for people and programs to read.

A letter is a JSON object of texts: what it is for, what it says, and a signature of all of that by
a key that it names. The signature shows that nothing was altered since, and that the writer has
the key; whose key it is, people compare by its fingerprint.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from silotune.core.files import RecordError, in_words, read_json

from .signing import as_public_key, holds, signature_of

LARGEST = 100_000
"""Bytes of a letter."""

EARLY = timedelta(days=30)
"""Before something ends: people are told from then on, and programs renew what they can."""


class LetterError(RecordError):
    """A file is no letter of this kind, or was altered; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Letter:
    """What all letters have. Every field is a text.

    Attributes:
        KIND: what it is, in a word; the ending of its file.
        SIGNER: the field with the public key of who signs.
    """

    KIND: ClassVar[str]
    SIGNER: ClassVar[str]

    def check(self) -> None:
        """Refuse what no letter of this kind says.

        Raises:
            ValueError: naming the field.
        """
        check_key(self.SIGNER, getattr(self, self.SIGNER))

    def signed(self, key: Ed25519PrivateKey) -> dict[str, str]:
        """The letter as its file holds it.

        Args:
            key: of the signer.
        """
        told = self._statement()
        return {**told, "signature": base64.b64encode(signature_of(key, told)).decode()}

    @classmethod
    def read(cls, path: Path) -> Self:
        """A letter from its file, its signature checked.

        Raises:
            LetterError: if it is another thing, or was altered.
            RecordError: if it cannot be read.
        """
        return cls.opened(read_small(path), str(path))

    @classmethod
    def opened(cls, told: Mapping[str, Any], where: str) -> Self:
        """The inverse of ``signed``.

        Args:
            told: as it came; the file's version may be among it.
            where: for messages.

        Raises:
            LetterError: if it is another thing, or was altered.
        """
        said = {name: value for name, value in told.items() if name != "version"}
        names = {f.name for f in fields(cls)}
        if said.get("purpose") != cls.purpose():
            raise LetterError(f"{where}: is no {cls.KIND}")
        if said.keys() != names | {"purpose", "signature"}:
            raise LetterError(f"{where}: is no {cls.KIND} of this version: other fields")
        if not all(isinstance(value, str) for value in said.values()):
            raise LetterError(f"{where}: damaged; a field is no text")
        letter = cls(**{name: said[name] for name in names})
        try:
            letter.check()
            signature = base64.b64decode(said["signature"], validate=True)
        except (ValueError, binascii.Error) as error:
            raise LetterError(f"{where}: damaged; {error}") from error
        if not holds(getattr(letter, cls.SIGNER), letter._statement(), signature):
            raise LetterError(f"{where}: was altered after it was signed; ask for it again")
        return letter

    @classmethod
    def purpose(cls) -> str:
        """What its signature is for, and nothing else."""
        return f"silotune {cls.KIND} 1"

    def _statement(self) -> dict[str, str]:
        return {"purpose": self.purpose(), **asdict(self)}


def read_small(path: Path) -> dict[str, Any]:
    """A JSON file that somebody handed over.

    Raises:
        LetterError: if it is too large for a letter.
        RecordError: if it cannot be read.
    """
    with in_words(path):
        if path.is_file() and path.stat().st_size > LARGEST:
            raise LetterError(f"{path}: is too large for a letter")
    try:
        return read_json(path)
    except RecursionError as error:
        raise LetterError(f"{path}: damaged, this is no letter") from error


def check_key(field: str, text: str) -> None:
    """Refuse what is no public key, or is not written as one.

    Raises:
        ValueError: naming the field.
    """
    if as_public_key(text) != text:
        raise ValueError(f"{field}: is no public key")


def moment(text: str) -> datetime:
    """A time as letters tell it: ISO 8601, with its zone.

    Raises:
        ValueError: if it is none.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise ValueError("expires: is no time with a zone")
    return found


def is_over(expires: str) -> bool:
    """Whether a time has passed, by this machine's clock."""
    return datetime.now(UTC) >= moment(expires)


def ends_soon(expires: str) -> bool:
    """Whether a time comes within ``EARLY``."""
    return datetime.now(UTC) + EARLY >= moment(expires)
