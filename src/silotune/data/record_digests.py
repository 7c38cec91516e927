"""Record digests: what makes two records the same, in 32 bytes each.

A record is what is learned from, but for its label: the ids of labels depend on the label set, and
one text under two labels is still one text. An image is its bytes, wherever its file lies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from datasets import Dataset

from .columns import slices

_BESIDE = {"label", "person"}


def record_digests(table: Dataset) -> list[bytes]:
    """SHA-256 of the content of each record, in order of the rows.

    Args:
        table: a readable table.

    Raises:
        ValueError: naming the row of an image whose file cannot be read.
    """
    return list(_digests(table))


def tables_digest(tables: Sequence[Dataset]) -> str:
    """SHA-256 of whole tables, labels and the order of rows included, in hexadecimal."""
    whole = sha256()
    for table in tables:
        labels = table["label"][:] if "label" in table.column_names else None
        whole.update(repr((len(table), labels)).encode())
        whole.update(b"".join(record_digests(table)))
    return whole.hexdigest()


def _digests(table: Dataset) -> Iterator[bytes]:
    parts = [part for part in table.column_names if part not in _BESIDE]
    for first, columns in slices(table):
        cells = {part: columns[part] for part in parts}
        if "image" in cells:
            cells["image"] = [_pixels(cell, row) for row, cell in enumerate(cells["image"], first)]
        for content in zip(*cells.values(), strict=True):
            yield sha256(repr(content).encode()).digest()


def _pixels(cell: Any, row: int) -> bytes | None:
    """Digest of the bytes of an image; None where there is no image."""
    if isinstance(cell, dict):
        cell = cell["bytes"] or cell["path"]
    if isinstance(cell, str):
        try:
            cell = Path(cell).read_bytes()
        except OSError:
            raise ValueError(
                f"image: row {row} (the first is 0): the file that it names cannot be read"
            ) from None
    return None if cell is None else sha256(cell).digest()
