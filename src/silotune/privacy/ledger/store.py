"""What a silo owns and must not lose: what it has spent, what it sent last, and its keys.

    <folder>/ledger.jsonl            one line a charge, only ever appended to
    <folder>/sent/round-000007.bin   the sealed bytes of the newest round, to be sent again
    <folder>/keys/<digest>.key       the silo's 32 secret bytes for the run of that digest
    <folder>/keys/<digest>.records   SHA-256 of the records that correlated noise was begun for
    <folder>/lock                    held while a process uses the folder

A server that hides whole clients has such a folder too; what is said of records holds of clients.

The charge commits a release. Bytes are written first, with their charge in their header; then the
charge goes into the ledger; each is on the disk before the next step, and nobody is given the
bytes before both are. Bytes whose charge is not in the ledger do not count. So a crash leaves one
of two states: not charged, nothing sent, and the round is trained anew at no loss; or charged, and
a retry gets the same bytes at no further charge. A full disk shows before anything is charged.

A torn last line of the ledger (no newline at its end) counts as a charge if it can be read. If
not, it is dropped: its charge was still being written, and as bytes leave only after the whole
line is on the disk, nothing was sent for it. Any other unreadable line, or fewer charges than
there were before the last release, means that spent privacy was forgotten: the store refuses to
open.

Bytes that fail their checksum count as absent: their round is trained, and charged, again. Under
correlated noise it is not: its steps are a part of a stream that other rounds continue, so a round
that was charged is sent again or not at all. The same stream is drawn from the key, step by step:
a folder put back from an older copy would draw steps twice, which no charge pays for.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from silotune.core.files import append_line, in_words, write_bytes
from silotune.privacy.accounting.accountant import COARSE, FINE, epsilon
from silotune.privacy.accounting.charges import AnyCharge, CorrelatedCharge, Relation
from silotune.privacy.mechanisms.base import NoiseState

from .entry import UPDATE, LedgerEntry, SiloStoreError, read_ledger
from .noisy_counts import column_of

_MAGIC = b"silotune-sent-1 "
_KEY_BYTES = 32


class SiloStore:
    """The folder of one silo, used by one process at a time. A context manager.

    Raises:
        SiloStoreError: if the folder is in use, or charges in it are damaged or lost.
        RecordError: if it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._ledger, self._sent = folder / "ledger.jsonl", folder / "sent"
        self._keys = folder / "keys"
        with in_words(folder):
            _make(self._sent)
        self._lock = _locked(folder / "lock")
        try:
            with in_words(folder):
                self._entries = self._load()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another process use the folder."""
        self._lock.close()

    def runs(self) -> set[str]:
        """All that have charges here."""
        return {entry.run for entry in self._entries}

    def entries(self, run: str) -> list[LedgerEntry]:
        """The charges of ``run``, oldest first."""
        return [entry for entry in self._entries if entry.run == run]

    def spent(self, run: str) -> list[AnyCharge]:
        """What the accountant composes for ``run`` so far."""
        return [entry.charge for entry in self.entries(run)]

    def past(self, run: str) -> NoiseState:
        """The silo's own key for ``run``, made when first asked for, and its released steps.

        Raises:
            SiloStoreError: if the key is damaged, or lost after correlated noise was drawn from it.
            RecordError: if it cannot be written.
        """
        steps = sum(e.charge.steps for e in self.entries(run) if e.release == UPDATE)
        path = self._secret(run, "key")
        drawn = any(isinstance(charge, CorrelatedCharge) for charge in self.spent(run))
        with in_words(path):
            if not path.exists() and not drawn:
                _make(self._keys, mode=0o700)
                _write_secret(path, os.urandom(_KEY_BYTES))
            key = path.read_bytes() if path.exists() else b""
        if len(key) != _KEY_BYTES:
            raise SiloStoreError(
                f"{path}: the key of this run is lost or damaged, and the noise it has drawn "
                "cannot be continued; bring the file back from a copy, or begin a new run"
            )
        return NoiseState(key, steps)

    def still_holds(self, run: str, records: str) -> bool:
        """Whether the records are those that ``run`` began with, by their digest; says so once.

        Correlated noise counts on how often a record takes part, which follows from its place: a
        row that is deleted or moved would change the turns of others.
        """
        path = self._secret(run, "records")
        with in_words(path):
            if not path.exists():
                _make(self._keys, mode=0o700)
                _write_secret(path, records.encode())
            return path.read_bytes() == records.encode()

    def attempts(self, run: str, round: int, release: str = UPDATE) -> int:
        """How often a release of ``round`` has been charged: the number of its next attempt."""
        return sum((e.round, e.release) == (round, release) for e in self.entries(run))

    def may_train(self, run: str, round: int) -> bool:
        """Whether ``round`` may be trained: not again, once correlated noise was charged for it."""
        charged = [e.charge for e in self.entries(run) if (e.round, e.release) == (round, UPDATE)]
        return not any(isinstance(charge, CorrelatedCharge) for charge in charged)

    def affords(
        self,
        run: str,
        charge: AnyCharge,
        target_epsilon: float,
        delta: float,
        *,
        relation: Relation = "add-remove",
        release: str = UPDATE,
    ) -> bool:
        """Whether ``charge`` on top of what ``run`` has spent stays within the target.

        Only charges that the same records pay count together (``noisy_counts``).
        """
        paid = ((entry.release, entry.charge) for entry in self.entries(run))
        after = [*column_of(release, paid), charge]
        grids = (COARSE, FINE)  # both upper bounds, and the first is quick
        return any(
            epsilon(after, delta, relation=relation, grid=g) <= target_epsilon for g in grids
        )

    def sealed(self, run: str, round: int, fingerprint: str) -> bytes | None:
        """The bytes released for this very task; None if they are not here whole.

        Args:
            run: identifier of the run.
            round: 0-based.
            fingerprint: of the task they answered. Another task needs another answer.
        """
        parcel = _unpack(self._parcel(round))
        if parcel is None or (parcel.entry and parcel.entry not in self._entries):
            return None
        task = (parcel.run, parcel.round, parcel.fingerprint)
        return parcel.sealed if task == (run, round, fingerprint) else None

    def release(
        self, run: str, round: int, fingerprint: str, sealed: bytes, entry: LedgerEntry | None
    ) -> None:
        """Charge for ``sealed`` and keep it; only when this returns may it be sent.

        Args:
            run: identifier of the run.
            round: 0-based. Bytes of other rounds are deleted.
            fingerprint: of the task answered.
            sealed: what will be sent.
            entry: its charge; None without privacy.

        Raises:
            RecordError: if it could not be stored (disk full); then nothing may be sent.
            ValueError: if the charge is not that of this round's next attempt, or the round may
                not be trained again.
        """
        if entry:
            self._check_due(run, round, entry)
        parcel = _Parcel(run, round, fingerprint, entry, len(self._entries), sealed)
        write_bytes(self._parcel(round), _pack(parcel))
        if entry:
            append_line(self._ledger, entry.to_json())
            self._entries.append(entry)
        with in_words(self._sent):
            for path in self._sent.glob("round-*.bin"):
                if path != self._parcel(round):
                    path.unlink()

    def release_number(self, entry: LedgerEntry) -> None:
        """Charge for the number in ``entry``; only when this returns may it be sent.

        Raises:
            RecordError: if it could not be stored (disk full); then nothing may be sent.
            ValueError: if the charge is not that of the next attempt.
        """
        self._check_due(entry.run, entry.round, entry)
        append_line(self._ledger, entry.to_json())
        self._entries.append(entry)

    def _check_due(self, run: str, round: int, entry: LedgerEntry) -> None:
        due = (run, round, self.attempts(run, round, entry.release))
        if (entry.run, entry.round, entry.attempt) != due:
            raise ValueError(f"run, round and attempt of the charge must be {due}: {entry}")
        if entry.release == UPDATE and not self.may_train(run, round):
            raise ValueError(f"round {round} drew correlated noise before; it must not do so again")

    def _secret(self, run: str, kind: str) -> Path:
        return self._keys / f"{hashlib.sha256(run.encode()).hexdigest()[:32]}.{kind}"

    def _parcel(self, round: int) -> Path:
        return self._sent / f"round-{round:06d}.bin"

    def _load(self) -> list[LedgerEntry]:
        _mend(self._ledger)
        entries = read_ledger(self._ledger)
        for parcel in map(_unpack, self._sent.glob("round-*.bin")):
            if parcel and parcel.charges_before > len(entries):
                raise SiloStoreError(
                    f"{self._ledger}: holds {len(entries)} charges, but there were at least "
                    f"{parcel.charges_before}; the privacy spent is not known. Bring the file "
                    "back from a copy"
                )
        return entries


@dataclass(frozen=True)
class _Parcel:
    """Bytes to send, with the task they answer and their charge."""

    run: str
    round: int
    fingerprint: str
    entry: LedgerEntry | None
    charges_before: int
    sealed: bytes


def _pack(parcel: _Parcel) -> bytes:
    """A line with the checksum of the rest, a line of JSON, then the bytes."""
    header = {
        "run": parcel.run,
        "round": parcel.round,
        "fingerprint": parcel.fingerprint,
        "entry": parcel.entry.to_json() if parcel.entry else None,
        "charges_before": parcel.charges_before,
    }
    rest = json.dumps(header).encode() + b"\n" + parcel.sealed
    return _MAGIC + hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest


def _unpack(path: Path) -> _Parcel | None:
    """The parcel in a file; None if there is none or its checksum does not hold."""
    try:
        first, _, rest = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    if first != _MAGIC + hashlib.sha256(rest).hexdigest().encode():
        return None
    line, _, sealed = rest.partition(b"\n")
    header = json.loads(line)
    entry = header.pop("entry")
    return _Parcel(**header, entry=LedgerEntry.parse(entry) if entry else None, sealed=sealed)


def _write_secret(path: Path, secret: bytes) -> None:
    """Create a file whole, durably, for its owner's eyes only."""
    draft = path.with_name(f".{path.name}.tmp")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(handle, "wb") as file:
        file.write(secret)
        file.flush()
        os.fsync(handle)
    os.replace(draft, path)
    _sync(path.parent)


def _mend(path: Path) -> None:
    """Create the ledger, or give a last line that can be read the newline it lacks."""
    if not path.exists():
        path.touch()
        _sync(path.parent)
    elif _is_json(path.read_bytes().rpartition(b"\n")[2]):
        with path.open("ab") as file:
            file.write(b"\n")
            file.flush()
            os.fsync(file.fileno())


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _locked(path: Path) -> BinaryIO:
    """The lock file, locked; the kernel unlocks it when the process ends, however it ends."""
    with in_words(path):
        lock = path.open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise SiloStoreError(
                f"{path.parent}: another process is using this silo's folder; "
                "stop it, or choose another output_dir"
            ) from error
        except OSError:
            lock.close()
            raise
    return lock


def _make(folder: Path, mode: int = 0o777) -> None:
    """Create a folder and those above it, durably."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(mode, exist_ok=True)
        _sync(folder.parent)


def _sync(folder: Path) -> None:
    """Make new names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
