"""What a silo owns and must not lose: what it has spent, what it sent last, and its keys.

    <folder>/ledger.jsonl            one line a charge, each chained to the one before it
    <folder>/sent/round-000007.bin   the sealed bytes of the newest round, to be sent again; until
                                     they are charged for they are called .draft
    <folder>/keys/<digest>.key       the silo's 32 secret bytes for the run of that digest, where
                                     correlated noise needs them
    <folder>/keys/<digest>.records   SHA-256 of the records that correlated noise was begun for
    <folder>/lock                    held while a process uses the folder

A server that hides whole clients has such a folder too; what is said of records holds of clients.

The charge commits a release. Bytes are written first, with their charge in their header; then the
charge goes into the ledger, with the digest of the bytes; each is on the disk before the next step,
and nobody is given the bytes before both are. Bytes whose charge is not in the ledger do not count.
So a crash leaves one of two states: not charged, nothing sent, and the round is trained anew at no
loss; or charged, and a retry gets the same bytes at no further charge. A full disk shows before
anything is charged.

A torn last line of the ledger (no newline at its end) counts as a charge if it can be read. If
not, it is dropped: its charge was still being written, and as bytes leave only after the whole
line is on the disk, nothing was sent for it. Any other line that cannot be read or is not chained
to the one before it, or bytes that were charged for with a line that is not here, means that spent
privacy was forgotten: the store refuses to open. Whoever puts the whole folder back from an older
copy is not found out here: the run that it belongs to has a copy of every line
(``certificate.evidence``).

Bytes that fail their checksum count as absent: their round is trained, and charged, again. Under
correlated noise it is not: its steps are a part of a stream that other rounds continue, so a round
that was charged is sent again or not at all. The same stream is drawn from the key, step by step:
a folder put back from an older copy would draw steps twice, which no charge pays for.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Self

from silotune.core.durable import Writing, Written, settled
from silotune.core.files import complete_last_line, in_words, write_all
from silotune.core.locks import locked
from silotune.privacy.accounting.charges import AnyCharge, CorrelatedCharge
from silotune.privacy.choice import PrivacyBudget
from silotune.privacy.mechanisms.base import NoiseState

from .book import Book
from .chain import CURE, Chain
from .entry import UPDATE, LedgerEntry, SiloStoreError
from .ledger import Ledger
from .noisy_counts import column_of
from .parcel import Parcel, read_parcel
from .private_files import sync, write_private

LEDGER, SENT = "ledger.jsonl", "sent"
"""In a silo's folder."""

_CHARGED, _DRAFT = ".bin", ".draft"

_KEY_BYTES = 32


class SiloStore:
    """The folder of one silo, used by one process at a time. A context manager.

    Args:
        folder: the silo's own.
        ledger: of that folder, as this process knows it from before: what was read is not read
            again. None reads, and proves, all of it.

    Raises:
        SiloStoreError: if the folder is in use, or charges in it are damaged or lost.
        RecordError: if it cannot be written.
    """

    def __init__(self, folder: Path, ledger: Ledger | None = None) -> None:
        self._ledger = ledger or Ledger(folder / LEDGER)
        self._sent, self._keys = folder / SENT, folder / "keys"
        with in_words(folder):
            _make(self._sent)
        self._lock = _locked(folder / "lock")
        try:
            with in_words(folder):
                _mend(self._ledger.path)
                self._ledger.follow()
                self._finish_drafts()
                check_kept(folder, self._chain)
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
        return self._chain.runs()

    def book(self, run: str) -> Book:
        """The charges of ``run``, added up."""
        return self._chain.book(run)

    def entries(self, run: str) -> list[LedgerEntry]:
        """The charges of ``run``, oldest first."""
        return list(self.book(run).entries)

    def spent(self, run: str) -> list[AnyCharge]:
        """What the accountant composes for ``run`` so far."""
        return [entry.charge for entry in self.entries(run)]

    def past(self, run: str) -> NoiseState:
        """The silo's own key for ``run``, made when first asked for, and its released steps.

        Correlated noise alone needs it.

        Raises:
            SiloStoreError: if the key is damaged, or lost after correlated noise was drawn from it.
            RecordError: if it cannot be written.
        """
        book, path = self.book(run), self._secret(run, "key")
        drawn = any(isinstance(line.charge, CorrelatedCharge) for line in book.account)
        with in_words(path):
            if not path.exists() and not drawn:
                _make(self._keys, mode=0o700)
                write_private(path, os.urandom(_KEY_BYTES))
            key = path.read_bytes() if path.exists() else b""
        if len(key) != _KEY_BYTES:
            raise SiloStoreError(
                f"{path}: the key of this run is lost or damaged, and the noise it has drawn "
                "cannot be continued; bring the file back from a copy, or begin a new run"
            )
        return NoiseState(key, book.steps)

    def still_holds(self, run: str, records: str) -> bool:
        """Whether the records are those that ``run`` began with, by their digest; says so once.

        Correlated noise counts on how often a record takes part, which follows from its place: a
        row that is deleted or moved would change the turns of others.
        """
        path = self._secret(run, "records")
        with in_words(path):
            if not path.exists():
                _make(self._keys, mode=0o700)
                write_private(path, records.encode())
            return path.read_bytes() == records.encode()

    def attempts(self, run: str, round: int, release: str = UPDATE) -> int:
        """How often a release of ``round`` has been charged: the number of its next attempt."""
        return len(self.book(run).of(release, round))

    def may_train(self, run: str, round: int) -> bool:
        """Whether ``round`` may be trained: not again, once correlated noise was charged for it."""
        charged = self.book(run).of(UPDATE, round)
        return not any(isinstance(entry.charge, CorrelatedCharge) for entry in charged)

    def affords(
        self, run: str, charge: AnyCharge, budget: PrivacyBudget, release: str = UPDATE
    ) -> bool:
        """Whether ``charge`` on top of what ``run`` has spent stays within the budget.

        Only charges that the same records pay count together (``noisy_counts``).
        """
        paid = ((line.release, line.charge) for line in self.book(run).account)
        return budget.affords([*column_of(release, paid), charge])

    def sealed(self, run: str, round: int, fingerprint: str) -> bytes | None:
        """The bytes released for this very task; None if they are not here whole.

        Args:
            run: identifier of the run.
            round: 0-based.
            fingerprint: of the task they answered. Another task needs another answer.
        """
        parcel = read_parcel(self._parcel(round))
        if parcel is None or not parcel.paid(self._chain):
            return None
        task = (parcel.run, parcel.round, parcel.fingerprint)
        return parcel.sealed if task == (run, round, fingerprint) else None

    def release(
        self, run: str, round: int, fingerprint: str, sealed: bytes, entry: LedgerEntry | None
    ) -> None:
        """``releasing``, at once; only when this returns may it be sent."""
        settled(self.releasing(run, round, fingerprint, sealed, entry))

    def releasing(
        self, run: str, round: int, fingerprint: str, sealed: bytes, entry: LedgerEntry | None
    ) -> Writing[None]:
        """Charge for ``sealed`` and keep it; only when all steps are taken may it be sent.

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
            entry = replace(entry, sent=hashlib.sha256(sealed).hexdigest())
        parcel = Parcel(
            run=run,
            round=round,
            fingerprint=fingerprint,
            entry=entry,
            lines=len(self._chain),
            head=self._chain.head,
            sealed=sealed,
        )
        draft = self._parcel(round).with_suffix(_DRAFT)
        yield from _drafted(draft, parcel.to_bytes())
        if entry:
            yield from self._ledger.appending(entry)
        with in_words(self._sent):
            draft.replace(self._parcel(round))
            for path in self._sent.glob("round-*"):
                if path != self._parcel(round):
                    path.unlink()

    def release_number(self, entry: LedgerEntry) -> None:
        """Charge for the number in ``entry``; only when this returns may it be sent.

        Raises:
            RecordError: if it could not be stored (disk full); then nothing may be sent.
            ValueError: if the charge is not that of the next attempt.
        """
        self._check_due(entry.run, entry.round, entry)
        self._ledger.append(entry)

    @property
    def _chain(self) -> Chain:
        return self._ledger.chain

    def _check_due(self, run: str, round: int, entry: LedgerEntry) -> None:
        due = (run, round, self.attempts(run, round, entry.release))
        if (entry.run, entry.round, entry.attempt) != due:
            raise ValueError(f"run, round and attempt of the charge must be {due}: {entry}")
        if entry.release == UPDATE and not self.may_train(run, round):
            raise ValueError(f"round {round} drew correlated noise before; it must not do so again")

    def _secret(self, run: str, kind: str) -> Path:
        return self._keys / f"{hashlib.sha256(run.encode()).hexdigest()[:32]}.{kind}"

    def _parcel(self, round: int) -> Path:
        return self._sent / f"round-{round:06d}{_CHARGED}"

    def _finish_drafts(self) -> None:
        """What a crash kept from its name, once it was charged for."""
        for path in self._sent.glob(f"round-*{_DRAFT}"):
            parcel = read_parcel(path)
            if parcel and parcel.paid(self._chain):
                path.replace(path.with_suffix(_CHARGED))


def check_kept(folder: Path, chain: Chain) -> None:
    """That a ledger has the charges of all that was sent and is still here.

    Args:
        folder: of a silo; nothing is written.
        chain: of its ledger.

    Raises:
        SiloStoreError: if it has not.
    """
    for path, parcel in parcels(folder):
        if parcel.paid(chain) and chain.holds(parcel.lines, parcel.head):
            continue
        due = parcel.lines + (parcel.entry is not None)
        why = f"holds {len(chain)} charges, but there were at least {due}"
        if len(chain) >= due:
            why = f"has other lines up to {due} than there were"
        raise SiloStoreError(
            f"{folder / LEDGER}: {why} when {path.name} was sent; the privacy spent is not known; "
            f"{CURE}"
        )


def parcels(folder: Path) -> Iterator[tuple[Path, Parcel]]:
    """What is kept of what was charged for, with its file; damaged ones are left out."""
    for path in sorted((folder / SENT).glob(f"round-*{_CHARGED}")):
        if parcel := read_parcel(path):
            yield path, parcel


def _drafted(path: Path, data: bytes) -> Writing[None]:
    """A file that counts for nothing until its charge is in the ledger."""
    with in_words(path):
        try:
            with path.open("wb", buffering=0) as file:
                write_all(file.fileno(), data)
            yield Written((path, path.parent))
        except OSError:
            path.unlink(missing_ok=True)
            raise


def _mend(path: Path) -> None:
    """Create the ledger, or give a last line that can be read the newline it lacks."""
    if not path.exists():
        path.touch()
        sync(path.parent)
    complete_last_line(path)


def _locked(path: Path) -> BinaryIO:
    """The lock file, locked; the kernel unlocks it when the process ends, however it ends."""
    with in_words(path):
        try:
            return locked(path)
        except BlockingIOError as error:
            raise SiloStoreError(
                f"{path.parent}: another process is using this silo's folder; "
                "stop it, or choose another output_dir"
            ) from error


def _make(folder: Path, mode: int = 0o777) -> None:
    """Create a folder and those above it, durably."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(mode, exist_ok=True)
        sync(folder.parent)
