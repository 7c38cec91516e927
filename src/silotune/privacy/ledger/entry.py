"""A silo's ledger, line by line: what was charged, chained to the line before.

A line is written in version 3. It has its number, counted from 1, and the SHA-256 of the line
before it, newline included; so the last line binds all of them, and none can be changed, lost or
moved alone. Lines of older versions were not chained: nothing shows that none of them was lost, so
they are refused.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from silotune.core.files import RecordError, json_line, parse_line
from silotune.privacy.accounting.charges import LARGEST, AnyCharge, from_json, to_json, typed

VERSION = 3
"""Of a ledger's lines."""

UPDATE = "update"
"""The release of a round's trained tensors."""

COUNT = "count"
"""The release of a noisy number of records, once in a run."""

METRIC = "metric"
"""The release of a noisy score; the held-out records pay for it, and no others."""

NOTHING = ""
"""What the first line is chained to."""


class SiloStoreError(RecordError):
    """A silo's folder is in use by somebody else, or has lost what it must not lose."""


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """One charge: what one attempt of one round cost one silo. Public.

    Attributes:
        run: identifier of the run.
        silo: name of the silo.
        round: 0-based.
        attempt: 0-based; above 0 where a round had to be trained again.
        release: what was released: ``update``, or the name of something optional.
        charge: what the accountant composes.
        max_grad_norm: C.
        time: ISO 8601, UTC.
        value: the number that was released; None where it was tensors.
        sent: SHA-256 of the sealed tensors that were released; None where it was a number, or
            nothing left.

    Raises:
        ValueError: if a field is out of range.
    """

    run: str
    silo: str
    round: int
    attempt: int
    release: str = UPDATE
    charge: AnyCharge
    max_grad_norm: float
    time: str
    value: int | None = None
    sent: str | None = None

    def __post_init__(self) -> None:
        if self.round < 0 or self.attempt < 0:
            raise ValueError("round and attempt must not be negative")
        if not 0.0 < self.max_grad_norm < math.inf:
            raise ValueError("max_grad_norm: must be positive and finite")

    @property
    def due(self) -> int:
        """The round in whose record it counts first; a state is scored before the next."""
        return self.round - 1 if self.release == METRIC else self.round

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values, without those that say nothing."""
        fields = {**vars(self), "charge": to_json(self.charge)}
        absent = [name for name in ("value", "sent") if fields[name] is None]
        return {name: field for name, field in fields.items() if name not in absent}

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> LedgerEntry:
        """The inverse of ``to_json``.

        Raises:
            ValueError: if a field is missing, unknown, of another type or out of range.
        """
        fields = {"value": None, "sent": None, **values}
        charge = from_json(fields.get("charge"))
        value = fields["value"]
        if value is not None and (type(value) is not int or abs(value) > LARGEST):
            raise ValueError("value is not a whole number")
        if not isinstance(fields["sent"], str | None):
            raise ValueError("sent is no digest")
        return cls(**{**typed(cls, fields), "charge": charge})


@dataclass(frozen=True, kw_only=True)
class LedgerLine:
    """A charge in its place in the chain.

    Attributes:
        number: 1-based.
        previous: SHA-256 of the line before it; ``NOTHING`` for the first.
        entry: the charge.
        digest: SHA-256 of the line itself, newline included.
    """

    number: int
    previous: str
    entry: LedgerEntry
    digest: str

    @classmethod
    def parse(cls, line: bytes, where: str) -> LedgerLine:
        """The inverse of ``written``.

        Args:
            line: of a ledger, with its newline.
            where: file and line, for the message.

        Raises:
            ValueError: if it is not one of ours, or of another version.
        """
        values = parse_line(line, where, newest=VERSION)
        version = values.pop("version")
        if version != VERSION:
            raise ValueError(
                f"{where}: version {version} has no chain, so that nothing shows whether lines "
                "were lost; read it with the silotune that wrote it"
            )
        number, previous = values.pop("line", None), values.pop("previous", None)
        if type(number) is not int or not isinstance(previous, str):
            raise ValueError(f"{where}: line or previous is missing or of the wrong type")
        try:
            entry = LedgerEntry.parse(values)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        digest = hashlib.sha256(line).hexdigest()
        return cls(number=number, previous=previous, entry=entry, digest=digest)


def written(number: int, previous: str, entry: LedgerEntry) -> bytes:
    """A line as it is written, newline included.

    Args:
        number: 1-based.
        previous: SHA-256 of the line before it.
        entry: the charge.
    """
    place = {"version": VERSION, "line": number, "previous": previous}
    return json_line({**place, **entry.to_json()})
