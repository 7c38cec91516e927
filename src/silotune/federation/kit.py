"""Kit: an admission and the private key that it speaks of, in one file.

Whoever has had the file can answer in the site's name, the coordinator that made it first of all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from silotune.core.files import json_text
from silotune.keys import LetterError, public_of
from silotune.keys.letters import read_small
from silotune.privacy.ledger.private_files import write_private

from .admission import Admission

_PURPOSE = "silotune kit 1"


@dataclass(frozen=True)
class Kit:
    """What a site needs to be a member.

    Attributes:
        admission: as the coordinator signed it.
        key: the site's, secret.
        tls_key: that of its certificate, in PEM, secret; empty if it has none.
    """

    admission: Admission
    key: Ed25519PrivateKey = field(repr=False)
    tls_key: str = field(repr=False, default="")


def write_kit(path: Path, kit: Kit, coordinator: Ed25519PrivateKey) -> None:
    """Write it for its owner's eyes only.

    Args:
        path: in a folder that is there.
        kit: what is handed over.
        coordinator: the key that signs the admission.

    Raises:
        OSError: if it cannot be written.
    """
    told = {
        "purpose": _PURPOSE,
        "admission": kit.admission.signed(coordinator),
        "key": kit.key.private_bytes_raw().hex(),
        "tls_key": kit.tls_key,
    }
    write_private(path, json_text(told).encode())


def is_kit(told: dict[str, Any]) -> bool:
    """Whether a file says that it is one."""
    return told.get("purpose") == _PURPOSE


def read_kit(path: Path) -> Kit:
    """The inverse of ``write_kit``.

    Raises:
        LetterError: if it is another thing, or was altered.
        RecordError: if it cannot be read.
    """
    told = read_small(path)
    if not is_kit(told) or told.keys() != {*("version", "purpose", "admission", "key", "tls_key")}:
        raise LetterError(f"{path}: is no kit of this version")
    try:
        key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(told["key"]))
        admission = Admission.opened(dict(told["admission"]), str(path))
    except (TypeError, ValueError) as error:
        if isinstance(error, LetterError):
            raise
        raise LetterError(f"{path}: damaged; ask for it again") from error
    if public_of(key) != admission.site_key:
        raise LetterError(f"{path}: its key is not that of its admission; ask for it again")
    return Kit(admission, key, str(told["tls_key"]))
