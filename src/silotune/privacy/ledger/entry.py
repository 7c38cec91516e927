"""A silo's ledger: one line for every charge, only ever appended to.

A line is written in version 2, in which the charge is an object that names its kind. Version 1
had the fields of a Poisson-subsampled Gaussian in its place, and is still read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from silotune.core.files import RecordError, read_lines
from silotune.privacy.accounting.charges import AnyCharge, from_json, to_json, typed

VERSION = 2
"""Of a ledger's lines."""

UPDATE = "update"
"""The release of a round's trained tensors."""

COUNT = "count"
"""The release of a noisy number of records, once in a run."""

METRIC = "metric"
"""The release of a noisy score; the held-out records pay for it, and no others."""


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

    def __post_init__(self) -> None:
        if self.round < 0 or self.attempt < 0:
            raise ValueError("round and attempt must not be negative")
        if not 0.0 < self.max_grad_norm < math.inf:
            raise ValueError("max_grad_norm: must be positive and finite")

    def to_json(self) -> dict[str, Any]:
        """A line of the ledger as JSON values."""
        line = {"version": VERSION, **asdict(self), "charge": to_json(self.charge)}
        return line if self.value is not None else _without_value(line)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> LedgerEntry:
        """The entry that a decoded line holds.

        Raises:
            ValueError: if a field is missing, unknown, of another type or out of range.
        """
        rest = dict(values)
        version = rest.pop("version", None)
        if version == 1:
            rest = _from_version_1(rest)
        elif version != VERSION:
            raise ValueError(f"version {version} is not known to this silotune")
        charge = from_json(rest.get("charge"))
        if not isinstance(rest.setdefault("value", None), int | None):
            raise ValueError("value is not a whole number")
        return cls(**{**typed(cls, rest), "charge": charge})


def read_ledger(path: Path) -> list[LedgerEntry]:
    """The charges in a ledger file, oldest first; a last line without a newline is left out.

    Raises:
        SiloStoreError: if a line cannot be read.
    """
    try:
        return [LedgerEntry.parse(values) for values in read_lines(path, newest=VERSION)]
    except ValueError as error:
        raise SiloStoreError(
            f"{path}: not every charge can be read ({error}), so the privacy spent is not known; "
            "bring the file back from a copy"
        ) from error


def _without_value(line: dict[str, Any]) -> dict[str, Any]:
    return {name: field for name, field in line.items() if name != "value"}


def _from_version_1(values: dict[str, Any]) -> dict[str, Any]:
    if newer := values.keys() & {"release", "charge"}:
        raise ValueError(f"version 1 has no {', '.join(sorted(newer))}")
    names = ("sampling_rate", "noise_multiplier", "steps")
    charge = {name: values.pop(name, None) for name in names}
    return {**values, "release": UPDATE, "charge": {"kind": "poisson", **charge}}
