"""Contents: what a record says, digested, so that it can be known again in another table.

What counts is what tells a record from others: its texts, the turns of a chat, the bytes of an
image. Labels do not (they are corrected, and have other numbers in another federation), nor do
persons. Texts count without regard to case, width and spacing, in which exports differ.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

from .columns import slices

APART = frozenset({"label", "person"})
"""Columns that do not tell a record from others."""


def contents(table: Dataset) -> Iterator[bytes]:
    """The content of each record of a readable table, 32 bytes; equal records have the same."""
    for _, columns in slices(table):
        parts = sorted(columns.keys() - APART)
        for cells in zip(*(columns[part] for part in parts), strict=True):
            yield _digest(
                _picture(cell) if part == "image" else _text(cell)
                for part, cell in zip(parts, cells, strict=True)
            )


def _digest(pieces: Iterator[bytes]) -> bytes:
    """Of pieces that are not empty; where one ends counts."""
    whole = hashlib.sha256()
    for piece in pieces:
        if piece:
            whole.update(len(piece).to_bytes(8, "big") + piece)
    return whole.digest()


def _text(cell: Any) -> bytes:
    """A text, or the turns of a chat."""
    if cell is None:
        return b""
    if isinstance(cell, str):
        plain = " ".join(unicodedata.normalize("NFKC", cell).casefold().split())
        return plain.encode(errors="surrogatepass")
    turns = (_text(turn["role"]) + b"\n" + _text(turn["content"]) for turn in cell)
    return _digest(turns)


def _picture(cell: Any) -> bytes:
    """The bytes of an image, or of the file that it is in."""
    content = cell["bytes"] or cell["path"] if isinstance(cell, dict) else cell
    return content if isinstance(content, bytes) else Path(content).read_bytes()
