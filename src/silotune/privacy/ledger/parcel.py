"""Parcel: sealed bytes that a silo sent, or is about to, with the task and the charge they answer.

A file is a line with the checksum of the rest, a line of JSON, then the bytes. Its header says
where in the ledger's chain its charge stands.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from .chain import Chain
from .entry import LedgerEntry

_MAGIC = b"silotune-sent-2 "


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """Bytes to send.

    Attributes:
        run: identifier of the run.
        round: 0-based.
        fingerprint: of the task answered.
        entry: the charge; None without privacy.
        lines: how many the ledger had before that charge.
        head: SHA-256 of the last of them.
        sealed: the bytes.
    """

    run: str
    round: int
    fingerprint: str
    entry: LedgerEntry | None
    lines: int
    head: str
    sealed: bytes

    def paid(self, chain: Chain) -> bool:
        """Whether these bytes are charged for in the ledger, where it says; or need not be."""
        if self.entry is None:
            return True
        charged = len(chain) > self.lines and chain.entries[self.lines] == self.entry
        return charged and self.entry.sent == hashlib.sha256(self.sealed).hexdigest()

    def to_bytes(self) -> bytes:
        """As a file."""
        header = {
            "run": self.run,
            "round": self.round,
            "fingerprint": self.fingerprint,
            "entry": self.entry.to_json() if self.entry else None,
            "lines": self.lines,
            "head": self.head,
        }
        rest = json.dumps(header).encode() + b"\n" + self.sealed
        return _MAGIC + hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest


def read_parcel(path: Path) -> Parcel | None:
    """The parcel in a file; None if there is none, or it is damaged."""
    try:
        first, _, rest = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    if first != _MAGIC + hashlib.sha256(rest).hexdigest().encode():
        return None
    line, _, sealed = rest.partition(b"\n")
    try:
        header = json.loads(line)
        entry = header.pop("entry")
        return Parcel(**header, entry=LedgerEntry.parse(entry) if entry else None, sealed=sealed)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
