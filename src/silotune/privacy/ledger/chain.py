"""Chain: the lines of one account, each of which must go on from the one before it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from silotune.core.files import in_words, whole_lines

from .book import Book
from .entry import NOTHING, LedgerEntry, LedgerLine, SiloStoreError

CURE = "bring the file back from a copy that has all of its lines"


class Chain:
    """The charges of one account, as far as they were read.

    Attributes:
        entries: of all runs, oldest first.
    """

    def __init__(self) -> None:
        self.entries: list[LedgerEntry] = []
        self._digests: list[str] = []
        self._books: dict[str, Book] = {}

    def __len__(self) -> int:
        """How many lines there are."""
        return len(self.entries)

    @property
    def head(self) -> str:
        """SHA-256 of the last line, which binds all of them."""
        return self.digest(len(self))

    def digest(self, number: int) -> str:
        """SHA-256 of a line.

        Args:
            number: 1-based; at 0 there is ``NOTHING``.
        """
        return self._digests[number - 1] if number else NOTHING

    def holds(self, number: int, digest: str) -> bool:
        """Whether line ``number`` is here, and has this digest."""
        return 0 <= number <= len(self) and self.digest(number) == digest

    def runs(self) -> set[str]:
        """All that have charges here."""
        return set(self._books)

    def book(self, run: str) -> Book:
        """The charges of one run."""
        return self._books.get(run) or Book()

    def take(self, line: LedgerLine, where: str) -> None:
        """One more line.

        Args:
            line: as it was read.
            where: file and line, for the message.

        Raises:
            SiloStoreError: if it does not go on from the line before it.
        """
        self._check_next(line, where)
        self.entries.append(line.entry)
        self._digests.append(line.digest)
        self._books.setdefault(line.entry.run, Book()).add(line.entry)

    def _check_next(self, line: LedgerLine, where: str) -> None:
        if line.number != len(self) + 1:
            raise SiloStoreError(
                f"{where}: is line {line.number} of {line.entry.silo} and comes after line "
                f"{len(self)}: lines were lost, moved or doubled; {CURE}"
            )
        if line.previous != self.head:
            raise SiloStoreError(
                f"{where}: is not chained to the line before it, which was changed since, or took "
                f"the place of another; {CURE}"
            )


def read_chains(path: Path) -> dict[str, Chain]:
    """The chain of every account in a ledger, of one silo or collected from all.

    Args:
        path: of the file; a last line without a newline is left out.

    Raises:
        SiloStoreError: if a line cannot be read, or breaks its account's chain.
    """
    chains: dict[str, Chain] = {}
    for _ in _checked(path, chains):
        pass
    return chains


def read_ledger(path: Path) -> list[LedgerEntry]:
    """The charges in a ledger, as they stand in the file.

    Raises:
        SiloStoreError: as ``read_chains``.
    """
    return list(_checked(path, {}))


def read_line(line: bytes, path: Path, number: int) -> LedgerLine:
    """One line of a ledger.

    Args:
        line: with its newline.
        path: of the file, for the message.
        number: of the line in the file.

    Raises:
        SiloStoreError: if it cannot be read.
    """
    try:
        return LedgerLine.parse(line, f"{path}, line {number}")
    except ValueError as error:
        raise SiloStoreError(
            f"{path}: not every charge can be read ({error}), so the privacy spent is not known; "
            f"{CURE}"
        ) from error


def _checked(path: Path, chains: dict[str, Chain]) -> Iterator[LedgerEntry]:
    with in_words(path):
        data = path.read_bytes() if path.exists() else b""
    for i, raw in enumerate(whole_lines(data).splitlines(keepends=True), start=1):
        line = read_line(raw, path, i)
        chains.setdefault(line.entry.silo, Chain()).take(line, f"{path}, line {i}")
        yield line.entry
