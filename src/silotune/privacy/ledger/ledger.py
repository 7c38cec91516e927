"""Ledger: a file of chained lines that is read once, and from then on followed.

Whoever uses a ledger for many rounds keeps one of these: what was read is not read again, but for
its last line, which must still be what it was. Whoever opens a folder afresh reads all of it, and
so proves the chain.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from silotune.core.durable import Writing, settled
from silotune.core.files import appending, in_words, whole_lines

from .chain import CURE, Chain, read_line
from .entry import LedgerEntry, SiloStoreError, written


class Ledger:
    """A silo's ledger, only ever appended to.

    Attributes:
        path: of the file; it need not exist.
        chain: what was read of it.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.chain = path, Chain()
        self._last, self._end = b"", 0

    @property
    def place(self) -> str:
        """Where it lies, for people."""
        return str(self.path)

    def follow(self) -> bytes:
        """Read what was appended since, all of it at first; a torn last line is no line.

        Returns:
            The new lines, as they stand in the file.

        Raises:
            SiloStoreError: if a line cannot be read, or is not chained to the one before it; or
                what was read before is there no more.
        """
        read = self._read(self._end - len(self._last))
        if not read.startswith(self._last):
            raise SiloStoreError(
                f"{self.path}: line {len(self.chain)} is not what it was when it was read; {CURE}"
            )
        new = whole_lines(read)[len(self._last) :]
        for line in new.splitlines(keepends=True):
            self._take(line)
        return new

    def since(self, number: int, digest: str) -> bytes:
        """The lines after one that somebody knows, as they stand in the file.

        Args:
            number: how many lines are known, 0 for none.
            digest: SHA-256 of the last of them.

        Raises:
            SiloStoreError: if that line is not here; or as ``follow``.
        """
        self.follow()
        if not self.chain.holds(number, digest):
            raise SiloStoreError(
                f"{self.path}: has no line {number} of the digest that was told; {CURE}"
            )
        lines = whole_lines(self._read(0)).splitlines(keepends=True)
        return b"".join(lines[number:])

    def append(self, entry: LedgerEntry) -> None:
        """``appending``, at once; errors are the same."""
        settled(self.appending(entry))

    def appending(self, entry: LedgerEntry) -> Writing[None]:
        """Charge; it counts as read once it is on the disk.

        Raises:
            RecordError: if it could not be written; the lines before it are intact.
        """
        line = written(len(self.chain) + 1, self.chain.head, entry)
        yield from appending(self.path, line)
        self._take(line)

    def _read(self, start: int) -> bytes:
        absent = suppress(FileNotFoundError, NotADirectoryError)
        with in_words(self.path), absent, open(self.path, "rb", buffering=0) as file:
            file.seek(start)
            return file.read()
        return b""

    def _take(self, line: bytes) -> None:
        number = len(self.chain) + 1
        read = read_line(line, self.path, number)
        self.chain.take(read, f"{self.path}, line {number}")
        self._last, self._end = line, self._end + len(line)
