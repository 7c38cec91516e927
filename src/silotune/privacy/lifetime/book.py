"""The book for life: a folder outside of all runs, with one line for every charge of every run.

    <folder>/book.jsonl   one line a charge, numbered, only ever appended to
    <folder>/sets/<name>  the records that a line speaks of, as keyed digests (``record_set``)
    <folder>/key          the book's 32 secret bytes, made once
    <folder>/lock         held while something is read or written

All of it is private to its owner. A line is on the disk before the ledger of the run has the same
charge, and so before anything leaves. A crash between the two leaves a charge for life of which
nothing was sent: an overcount. The reverse cannot be.

A torn last line is handled as in the silo's ledger: it counts if it can be read, and else nothing
was sent for it. Any other line that cannot be read, a number that is missing, a set that is
damaged or a lost key mean that it is not known what was spent: the book refuses to open.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from silotune.core.files import append_line
from silotune.privacy.accounting.charges import AnyCharge, Relation, from_json, to_json, typed
from silotune.privacy.ledger.entry import SiloStoreError

from .choice import ENVIRONMENT
from .record_set import RecordSet

VERSION = 1
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
        """A line as JSON values, but for its number."""
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
        self._lines, self._lock = folder / "book.jsonl", folder / "lock"
        self._read = 0  # bytes
        self._sets: dict[str, RecordSet] = {}
        with self._in_words():
            _make_private(folder / "sets")
        with self.locked(), self._in_words():
            self.key = self._own_key()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Inside, nobody else writes, and all that anybody wrote is in ``payments``."""
        with self._in_words():
            lock = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            with self._in_words():
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._catch_up()
            yield
        finally:
            os.close(lock)  # which unlocks it

    def append(self, payment: Payment, records: RecordSet) -> None:
        """Write a charge down; when this returns it is on the disk. Only inside ``locked``.

        Args:
            payment: names the set.
            records: the set; kept if it is a new one.
        """
        assert payment.records == records.id
        with self._in_words():
            self._keep(records)
            line = {**payment.to_json(), "version": VERSION, "number": len(self.payments)}
            append_line(self._lines, line)
            self._read = self._lines.stat().st_size
        self.payments.append(payment)

    def sets(self) -> dict[str, RecordSet]:
        """All sets that have paid, by name.

        Raises:
            BookError: if one is lost or damaged.
        """
        for name in {payment.records for payment in self.payments} - self._sets.keys():
            self._sets[name] = self._set_named(name)
        return self._sets

    def _catch_up(self) -> None:
        """Read what is new, and mend a torn end."""
        if not self._lines.exists():
            if self._read:
                raise self._lost("it was there, and is gone")
            _write_private(self._lines, b"")
        with self._lines.open("rb") as file:
            if self._lines.stat().st_size < self._read:
                raise self._lost("it has become shorter")
            file.seek(self._read)
            fresh = file.read()
        whole, _, torn = fresh.rpartition(b"\n")
        whole += b"\n" if b"\n" in fresh else b""
        if torn and _is_json(torn):
            _append(self._lines, b"\n")
            whole += torn + b"\n"
        elif torn:
            os.truncate(self._lines, self._read + len(whole))
        for line in whole.splitlines():
            self.payments.append(self._parsed(line))
        self._read += len(whole)

    def _parsed(self, line: bytes) -> Payment:
        number = len(self.payments)
        try:
            values = json.loads(line)
            if values.pop("version") != VERSION:
                raise ValueError("written by a newer silotune")
            if values.pop("number") != number:
                raise ValueError("a line before it is missing")
            return Payment.parse(values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._lost(f"line {number + 1} cannot be read ({error})") from error

    def _own_key(self) -> bytes:
        path = self.folder / "key"
        if not path.exists():
            if self.payments:
                raise self._lost("its key is lost, so that no record can be told again")
            _write_private(path, os.urandom(KEY_BYTES))
        key = path.read_bytes()
        if len(key) != KEY_BYTES:
            raise self._lost("its key is damaged, so that no record can be told again")
        return key

    def _keep(self, records: RecordSet) -> None:
        path = self.folder / "sets" / records.id
        if not path.exists():
            _write_private(path, records.to_bytes())
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


def _make_private(folder: Path) -> None:
    """Create a folder and those above it, durably, for their owner alone."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not folder.is_dir():
        _make_private(folder.parent)
        folder.mkdir(0o700, exist_ok=True)
        _sync(folder.parent)


def _write_private(path: Path, content: bytes) -> None:
    """Create a file whole, durably, for its owner alone."""
    draft = path.with_name(f".{path.name}.tmp")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(handle)
    os.replace(draft, path)
    _sync(path.parent)


def _append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Make new names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
