"""What a silo owns and must not lose: the charges it has spent, and the bytes it sent last.

    <folder>/ledger.jsonl            one line a charge, only ever appended to
    <folder>/sent/round-000007.bin   the sealed bytes of the newest round, to be sent again
    <folder>/lock                    held while a process uses the folder

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

Bytes that fail their checksum count as absent: their round is trained, and charged, again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Self

from silotune.core.files import RecordError, append_line, in_words, read_lines, write_bytes

from .accounting import COARSE, Charge, epsilon

_MAGIC = b"silotune-sent-1 "


class SiloStoreError(RecordError):
    """A silo's folder is in use by somebody else, or its ledger has lost charges."""


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """One charge: what one attempt of one round cost one silo. Public.

    Attributes:
        version: of this format.
        run: identifier of the run.
        silo: name of the silo.
        round: 0-based.
        attempt: 0-based; above 0 where a round had to be trained again.
        sampling_rate: q.
        noise_multiplier: sigma, noise std in units of the clip norm.
        max_grad_norm: C.
        steps: local steps executed.
        time: ISO 8601, UTC.

    Raises:
        ValueError: if a field is out of range.
    """

    version: int = 1
    run: str
    silo: str
    round: int
    attempt: int
    sampling_rate: float
    noise_multiplier: float
    max_grad_norm: float
    steps: int
    time: str

    def __post_init__(self) -> None:
        if self.version != 1:
            raise ValueError(f"version {self.version} is not known to this silotune")
        if self.round < 0 or self.attempt < 0:
            raise ValueError("round and attempt must not be negative")
        if not 0.0 < self.max_grad_norm < math.inf:
            raise ValueError("privacy.max_grad_norm: must be positive and finite")
        self.charge()

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> LedgerEntry:
        """The entry that a decoded line of JSON holds.

        Raises:
            ValueError: if a field is missing, unknown, of another type or out of range.
        """
        kinds: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float)}
        for name, kind in ((f.name, kinds[str(f.type)]) for f in fields(cls)):
            if not isinstance(values.get(name), kind):
                raise ValueError(f"{name} is missing or of the wrong type")
        if unknown := values.keys() - {f.name for f in fields(cls)}:
            raise ValueError(f"unknown fields: {', '.join(sorted(unknown))}")
        return cls(**values)

    def charge(self) -> Charge:
        """What the accountant composes."""
        return Charge(self.sampling_rate, self.noise_multiplier, self.steps)


class SiloStore:
    """The folder of one silo, used by one process at a time. A context manager.

    Raises:
        SiloStoreError: if the folder is in use, or charges in it are damaged or lost.
        RecordError: if it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._ledger, self._sent = folder / "ledger.jsonl", folder / "sent"
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

    def entries(self, run: str) -> list[LedgerEntry]:
        """The charges of ``run``, oldest first."""
        return [entry for entry in self._entries if entry.run == run]

    def spent(self, run: str) -> list[Charge]:
        """What the accountant composes for ``run`` so far."""
        return [entry.charge() for entry in self.entries(run)]

    def attempts(self, run: str, round: int) -> int:
        """How often ``round`` has been charged: the number of its next attempt."""
        return sum(entry.round == round for entry in self.entries(run))

    def affords(self, run: str, charge: Charge, target_epsilon: float, delta: float) -> bool:
        """Whether ``charge`` on top of all that ``run`` has spent stays within the target."""
        after = [*self.spent(run), charge]
        if epsilon(after, delta, grid=COARSE) <= target_epsilon:  # an upper bound, and quick
            return True
        return epsilon(after, delta) <= target_epsilon

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
            ValueError: if the charge is not that of this round's next attempt.
        """
        due = (run, round, self.attempts(run, round))
        if entry and (entry.run, entry.round, entry.attempt) != due:
            raise ValueError(f"run, round and attempt of the charge must be {due}: {entry}")
        parcel = _Parcel(run, round, fingerprint, entry, len(self._entries), sealed)
        write_bytes(self._parcel(round), _pack(parcel))
        if entry:
            append_line(self._ledger, asdict(entry))
            self._entries.append(entry)
        with in_words(self._sent):
            for path in self._sent.glob("round-*.bin"):
                if path != self._parcel(round):
                    path.unlink()

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


def read_ledger(path: Path) -> list[LedgerEntry]:
    """The charges in a ledger file, oldest first; a last line without a newline is left out.

    Raises:
        SiloStoreError: if a line cannot be read.
    """
    try:
        return [LedgerEntry.parse(values) for values in read_lines(path)]
    except ValueError as error:
        raise SiloStoreError(
            f"{path}: not every charge can be read ({error}), so the privacy spent is not known; "
            "bring the file back from a copy"
        ) from error


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
        "entry": asdict(parcel.entry) if parcel.entry else None,
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


def _make(folder: Path) -> None:
    """Create a folder and those above it, durably."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _sync(folder: Path) -> None:
    """Make new names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
