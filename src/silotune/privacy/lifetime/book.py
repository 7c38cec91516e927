"""The book for life: a folder outside of all runs, with one line for every charge of every run.

    <folder>/book.jsonl   one line a charge, numbered and chained, only ever appended to
    <folder>/head         how many lines there are, and SHA-256 of the last
    <folder>/sets/<name>  the records that a line speaks of, as keyed digests (``record_set``)
    <folder>/key          the book's 32 secret bytes, made once
    <folder>/lock         held while something is read or written

All of it is private to its owner. A line is on the disk before the ledger of the run has the same
charge, and so before anything leaves. A crash between the two leaves a charge for life of which
nothing was sent: an overcount. The reverse cannot be.

A torn last line is handled as in the silo's ledger: it counts if it can be read, and else nothing
was sent for it. Every line has the SHA-256 of the line before it, newline included. The head is
written after a line and before anything is sent for it, so that it lacks one line at most, as a
crash leaves it. Fewer lines than the head has, another line than it names, one that cannot be read,
a set that is damaged, or a lost file beside others of the book mean that it is not known what was
spent: the book refuses to open. Only a folder that is gone as a whole, or as a whole is older, can
look like a true one; a run that is resumed then notices by its own ledger.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from silotune.core.files import append_bytes, complete_last_line, json_line, whole_lines
from silotune.core.locks import locked
from silotune.privacy.accounting.charges import AnyCharge, Relation, from_json, to_json, typed
from silotune.privacy.ledger.entry import NOTHING, SiloStoreError
from silotune.privacy.ledger.private_files import make_private, write_private

from .choice import ENVIRONMENT
from .record_set import RecordSet
from .sums import Part, Sums

VERSION = 2
"""Of a book's lines."""

KEY_BYTES = 32

CURE = (
    f"name a folder that can be written (folder of lifetime, or {ENVIRONMENT}), or set lifetime "
    "to off for public data"
)


class BookError(SiloStoreError):
    """A book for life cannot be read or written, or has lost what it must not lose."""


@dataclass(frozen=True, kw_only=True)
class Payment:
    """One charge, of whatever run, and the records that paid it. Private to the silo.

    Attributes:
        records: name of the set (``RecordSet.id``).
        run: identifier of the run.
        silo: by what name they took part.
        round: 0-based.
        attempt: 0-based.
        release: what was released.
        charge: what the accountant composes.
        relation: that the run was priced under.
        delta: of the run.
        seeded: whether the noise came from a seed, so that nothing protects what was released.
        time: ISO 8601, UTC.

    Raises:
        ValueError: if a field is out of range.
    """

    records: str
    run: str
    silo: str
    round: int
    attempt: int
    release: str
    charge: AnyCharge
    relation: Relation
    delta: float
    seeded: bool
    time: str

    def __post_init__(self) -> None:
        if self.relation not in get_args(Relation):
            raise ValueError(f"relation: there is none called {self.relation!r}")
        if min(self.round, self.attempt) < 0:
            raise ValueError("round and attempt must not be negative")

    def to_json(self) -> dict[str, Any]:
        """A line as JSON values, but for its place in the chain."""
        return {**asdict(self), "charge": to_json(self.charge)}

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Payment:
        """The payment that a decoded line holds.

        Raises:
            ValueError: if a field is missing, unknown or of another type.
        """
        charge = from_json(values.get("charge"))
        return cls(**{**typed(cls, values), "charge": charge})


class Book:
    """The book in one folder; any number of processes may have it open.

    Attributes:
        payments: oldest first.
        sums: of them.
        key: the book's secret.

    Raises:
        BookError: if it cannot be read or written, or what it holds is damaged.
    """

    def __init__(self, folder: Path) -> None:
        """Open the book, or begin it.

        Args:
            folder: made if it is not there.
        """
        self.folder = folder
        self.payments: list[Payment] = []
        self.sums = Sums()
        self._lines, self._lock = folder / "book.jsonl", folder / "lock"
        self._head, self._key = folder / "head", folder / "key"
        self._read = 0  # bytes
        self._digests: list[str] = []  # of lines
        self._sets: dict[str, RecordSet] = {}
        with self._in_words():
            make_private(folder / "sets")
        with self.locked(), self._in_words():
            self.key = self._own_key()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Inside, nobody else writes, and all that anybody wrote is in ``payments``."""
        with self._in_words():
            lock = locked(self._lock, wait=True, mode=0o600)
        with lock:
            with self._in_words():
                self._catch_up()
            yield

    def append(self, payment: Payment, records: RecordSet) -> None:
        """Write a charge down; when this returns it is on the disk. Only inside ``locked``.

        Args:
            payment: names the set.
            records: the set; kept if it is a new one.
        """
        assert payment.records == records.id
        with self._in_words():
            self._keep(records)
            place = {"version": VERSION, "number": len(self.payments), "previous": self._digest()}
            line = json_line({**place, **payment.to_json()})
            append_bytes(self._lines, line)
            self._read = self._lines.stat().st_size
            self._take(payment, line)
            self._write_head()

    def sets(self) -> dict[str, RecordSet]:
        """All sets that have paid, by name.

        Raises:
            BookError: if one is lost or damaged.
        """
        for name in {payment.records for payment in self.payments} - self._sets.keys():
            self._sets[name] = self._set_named(name)
        return self._sets

    def _catch_up(self) -> None:
        """Read what is new, and mend a torn end and a head that lacks one line."""
        if not self._lines.exists():
            if self._read or self._head.exists() or self._has_more():
                raise self._lost("book.jsonl was there, and is gone")
            write_private(self._lines, b"")
        complete_last_line(self._lines)
        with self._lines.open("rb") as file:
            if self._lines.stat().st_size < self._read:
                raise self._lost("it has become shorter")
            file.seek(self._read)
            fresh = whole_lines(file.read())
        for line in fresh.splitlines(keepends=True):
            self._take(self._parsed(line), line)
        self._read += len(fresh)
        self._check_head()

    def _parsed(self, line: bytes) -> Payment:
        number = len(self.payments)
        try:
            values = json.loads(line)
            version = values.pop("version")
            if version != VERSION:
                raise ValueError(f"of version {version}, written by another silotune")
            if values.pop("number") != number:
                raise ValueError("a line before it is missing")
            if values.pop("previous") != self._digest():
                raise ValueError("the line before it was changed since")
            return Payment.parse(values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._lost(f"line {number + 1} cannot be read ({error})") from error

    def _take(self, payment: Payment, line: bytes) -> None:
        self.payments.append(payment)
        part = Part(payment.run, payment.silo, payment.records)
        self.sums.add(part, (payment.release, payment.charge), seeded=payment.seeded)
        self._digests.append(hashlib.sha256(line).hexdigest())

    def _digest(self, lines: int | None = None) -> str:
        """SHA-256 of the last of so many lines; None = of all."""
        last = len(self._digests) if lines is None else lines
        return self._digests[last - 1] if last else NOTHING

    def _check_head(self) -> None:
        """See that no line is lost that was there, and that they are the same."""
        if not self._head.exists():
            if self.payments or self._has_more():
                raise self._lost("its head is lost, so that lines may be missing")
            self._write_head()
        try:
            head = json.loads(self._head.read_bytes())
            lines, digest = int(head["lines"]), str(head["digest"])
            if lines < 0:
                raise ValueError("fewer than no lines")
        except (ValueError, KeyError, TypeError) as error:
            raise self._lost(f"its head cannot be read ({error})") from error
        found = len(self.payments)
        if found < lines:
            raise self._lost(f"book.jsonl has {found} lines, and had {lines}")
        if found > lines + 1 or self._digest(lines) != digest:
            raise self._lost("its head is not that of book.jsonl: one of them is of another time")
        if found > lines:
            self._write_head()

    def _write_head(self) -> None:
        head = {"lines": len(self.payments), "digest": self._digest()}
        write_private(self._head, json.dumps(head).encode() + b"\n")

    def _has_more(self) -> bool:
        """Whether there is a key or a set, which a book has that was begun."""
        return self._key.exists() or any((self.folder / "sets").iterdir())

    def _own_key(self) -> bytes:
        if not self._key.exists():
            if self.payments or self._has_more():
                raise self._lost("its key is lost, so that no record can be told again")
            write_private(self._key, os.urandom(KEY_BYTES))
        key = self._key.read_bytes()
        if len(key) != KEY_BYTES:
            raise self._lost("its key is damaged, so that no record can be told again")
        return key

    def _keep(self, records: RecordSet) -> None:
        path = self.folder / "sets" / records.id
        if not path.exists():
            write_private(path, records.to_bytes())
        self._sets[records.id] = records

    def _set_named(self, name: str) -> RecordSet:
        try:
            found = RecordSet.from_bytes((self.folder / "sets" / name).read_bytes())
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._lost(f"the set of records {name} cannot be read ({error})") from error
        if found.id != name:
            raise self._lost(f"the set of records {name} is damaged")
        return found

    def _lost(self, what: str) -> BookError:
        return BookError(
            f"lifetime: {self.folder}: {what}; what these records have paid in their life is not "
            "known. Bring the folder back from a copy"
        )

    @contextlib.contextmanager
    def _in_words(self) -> Iterator[None]:
        """Errors of the operating system as a sentence that names the key."""
        try:
            yield
        except BookError:
            raise
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise BookError(f"lifetime: {self.folder}: {reason}; {CURE}") from error
