"""What a client keeps of its rounds, a file each, in its own folder.

What a round made of it counts once the round is paid for: it is drafted before the charge and
accepted after it, so that no later round begins from steps that no ledger holds. The newest file
from before the last accepted round is kept: a round that is asked for again begins from where it
began the first time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from silotune.core import RecordError, write_bytes
from silotune.core.files import in_words

_SUFFIX, _DRAFT = ".safetensors", ".draft"


@dataclass(frozen=True)
class KeptRounds:
    """Of one run and one kind of thing.

    Attributes:
        folder: where the files lie; it need not be there yet.
    """

    folder: Path

    def draft(self, round: int, attempt: str, blob: bytes) -> None:
        """Write what an attempt at a round made.

        Args:
            round: counts from 0.
            attempt: tells attempts at the same round apart.
            blob: what is to be kept.

        Raises:
            RecordError: if the disk is full or the place cannot be written.
        """
        with in_words(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        write_bytes(self._draft(round, attempt), blob)

    def accept(self, round: int, attempt: str) -> None:
        """Let later rounds begin from a draft, if there is one; what none needs any more goes.

        Raises:
            RecordError: if the place cannot be written.
        """
        with in_words(self.folder), contextlib.suppress(FileNotFoundError):
            self._draft(round, attempt).replace(self.folder / f"{round}{_SUFFIX}")
        earlier = [kept for kept, _ in self._files() if kept < round]
        for kept, path in self._files():
            if kept < max(earlier, default=0):
                path.unlink(missing_ok=True)

    def before(self, round: int) -> tuple[int, Path] | None:
        """The last accepted round before ``round``, and its file; None if there is none.

        Raises:
            RecordError: if it has been replaced by those of later rounds.
        """
        files = dict(self._files())
        earlier = [kept for kept in files if kept < round]
        if not earlier and any(kept > round for kept in files):
            raise RecordError(
                f"{self.folder.parent}: what round {round} began from has been replaced by later "
                "rounds; begin a new run"
            )
        return (max(earlier), files[max(earlier)]) if earlier else None

    def _draft(self, round: int, attempt: str) -> Path:
        return self.folder / f"{round}.{attempt}{_DRAFT}"

    def _files(self) -> Iterator[tuple[int, Path]]:
        for path in self.folder.glob(f"*{_SUFFIX}"):
            if path.stem.isdigit():
                yield int(path.stem), path
