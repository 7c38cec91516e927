"""A party's own key: 32 secret bytes in a file that its owner alone can read."""

from __future__ import annotations

import stat
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from silotune.core.files import DamagedError, RecordError, in_words
from silotune.privacy.ledger.private_files import make_private, write_private

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def own_key(path: Path) -> Ed25519PrivateKey:
    """The owner's, made when it is first needed; never printed, sent or copied.

    Raises:
        RecordError: as ``read_key``, or if it cannot be written.
    """
    with in_words(path):
        if not path.exists():
            make_private(path.parent)
            write_private(path, Ed25519PrivateKey.generate().private_bytes_raw())
    return read_key(path)


def read_key(path: Path) -> Ed25519PrivateKey:
    """A key that must be there.

    Raises:
        DamagedError: if it is missing, or is no key.
        RecordError: if it cannot be read, or somebody else may read or change it.
    """
    with in_words(path):
        if not path.exists():
            raise DamagedError(f"{path}: is missing; bring the key back from a copy")
        if path.stat().st_mode & _OTHERS:
            raise RecordError(
                f"{path}: others than its owner may read or change this key; if nobody did, "
                "close it (chmod 600), and else make a new one"
            )
        secret = path.read_bytes()
    try:
        return Ed25519PrivateKey.from_private_bytes(secret)
    except ValueError as error:
        raise DamagedError(f"{path}: is no key of ours; bring it back from a copy") from error
