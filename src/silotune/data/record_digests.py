"""Record digests: what makes two records the same, in 32 bytes each.

What counts is what tells a record from others: its texts, the turns of a chat, the bytes of an
image. Labels do not (they are corrected, and have other numbers in another federation), nor do
persons. Texts count without regard to case, width and spacing, in which exports differ.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from datasets import Dataset

from .columns import slices

_LEARNED = ("label", "tags", "spans")
_BESIDE = {*_LEARNED, "person"}


def record_digests(table: Dataset) -> list[bytes]:
    """SHA-256 of the content of each record, in order of the rows; equal records have the same.

    Args:
        table: a readable table.

    Raises:
        ValueError: naming the row of an image whose file cannot be read.
    """
    return list(_digests(table, _plain))


def tables_digest(tables: Sequence[Dataset]) -> str:
    """SHA-256 of whole tables to the letter, labels and the order of rows included, as text."""
    whole = sha256()
    for table in tables:
        learned = [table[part][:] for part in _LEARNED if part in table.column_names]
        whole.update(repr((len(table), learned[0] if learned else None)).encode())
        whole.update(b"".join(_digests(table, _to_the_letter)))
    return whole.hexdigest()


def _digests(table: Dataset, told: Callable[[Any], bytes]) -> Iterator[bytes]:
    parts = sorted(part for part in table.column_names if part not in _BESIDE)
    for first, columns in slices(table):
        cells = [
            [_pixels(cell, row) for row, cell in enumerate(columns[part], first)]
            if part == "image"
            else map(told, columns[part])
            for part in parts
        ]
        yield from map(_joined, zip(*cells, strict=True))


def _joined(pieces: Iterable[bytes]) -> bytes:
    """Digest of pieces that are not empty; where one ends counts."""
    whole = sha256()
    for piece in pieces:
        if piece:
            whole.update(len(piece).to_bytes(8, "big") + piece)
    return whole.digest()


def _plain(cell: Any) -> bytes:
    """A text, or the turns of a chat; whatever else there is, to the letter."""
    match cell:
        case None:
            return b""
        case str():
            plain = " ".join(unicodedata.normalize("NFKC", cell).casefold().split())
            return plain.encode(errors="surrogatepass")
        case list():
            return _joined(map(_plain, cell))
        case dict():
            return b"\n".join(_plain(cell[name]) for name in sorted(cell))
    return _to_the_letter(cell)


def _to_the_letter(cell: Any) -> bytes:
    return repr(cell).encode(errors="surrogatepass")


def _pixels(cell: Any, row: int) -> bytes:
    """Digest of the bytes of an image; empty where there is no image."""
    if isinstance(cell, dict):
        cell = cell["bytes"] or cell["path"]
    if isinstance(cell, str):
        try:
            cell = Path(cell).read_bytes()
        except OSError:
            raise ValueError(
                f"image: row {row} (the first is 0): the file that it names cannot be read"
            ) from None
    return b"" if cell is None else sha256(cell).digest()
