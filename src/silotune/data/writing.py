"""Writing: a table as a new file, told by its suffix; it is there whole, or not at all."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from datetime import date, time
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pa_parquet

from silotune.core.files import finite, write_apart

STANDARD = "-"
"""The name of standard input and output, as shells have it; they are jsonl."""

_BREAK = "\r\n"
"""Told to csv as the end of a row, for cells that hold either character are then quoted."""


def check_new(place: str, *, overwrite: bool) -> None:
    """See that a file can be written there, before there is anything to write.

    Args:
        place: of the file, or ``-``.
        overwrite: whether a file that is there may be replaced.

    Raises:
        ValueError: if its suffix is of nothing that is written, it is there, it is a link, or its
            folder is not there.
    """
    if place == STANDARD:
        return
    path = Path(place)
    if path.suffix.lower() not in _WRITERS:
        raise ValueError(f"output: {place} is none of {KINDS} (by its suffix)")
    if path.is_dir():
        raise ValueError(f"output: {place} is a folder; name a file")
    if path.is_symlink():
        raise ValueError(f"output: {place} is a link; name the file that it leads to")
    if not path.parent.is_dir():
        raise ValueError(f"output: there is no folder {path.parent}; make it")
    if path.exists() and not overwrite:
        raise ValueError(f"output: {place} exists already; choose another file, or --overwrite")


def check_holds(table: pa.Table, place: str) -> None:
    """See that a file can hold a table, before there is more to write: it is written to nowhere.

    Args:
        table: with some of the columns that are to be written.
        place: of the file, or ``-``.

    Raises:
        ValueError: naming a column that such a file cannot hold.
    """
    writer = json_lines if place == STANDARD else _WRITERS[Path(place).suffix.lower()]
    writer(table)


def write_table(table: pa.Table, place: Path, *, overwrite: bool) -> None:
    """Write a file, as its suffix says.

    Args:
        table: what it is to hold.
        place: where.
        overwrite: whether a file that is there by then is replaced, when all is written.

    Raises:
        ValueError: naming a column that such a file cannot hold.
        RecordError: if the disk is full, the place cannot be written, or something is there.
    """
    write_apart(place, _WRITERS[place.suffix.lower()](table), replace=overwrite)


def json_lines(table: pa.Table) -> bytes:
    """One object a line.

    Raises:
        ValueError: naming a column that JSON cannot hold.
    """
    columns = [_plain(name, table[name]) for name in table.column_names]
    rows = zip(*columns, strict=True)
    return "".join(
        f"{_json(dict(zip(table.column_names, row, strict=True)))}\n" for row in rows
    ).encode()


def _delimited(mark: str) -> Callable[[pa.Table], bytes]:
    """Lists and objects are JSON there, and nothing is an empty cell."""

    def content(table: pa.Table) -> bytes:
        columns = [_plain(name, table[name]) for name in table.column_names]
        rows = _Rows()
        writer = csv.writer(rows, delimiter=mark, lineterminator=_BREAK)
        writer.writerow(table.column_names)
        writer.writerows(
            [_json(cell) if isinstance(cell, list | dict) else cell for cell in row]
            for row in zip(*columns, strict=True)
        )
        return rows.text.getvalue().encode()

    return content


class _Rows:
    """Rows as they are written, each ended by a newline alone."""

    def __init__(self) -> None:
        self.text = StringIO(newline="")

    def write(self, row: str) -> None:
        self.text.write(row.removesuffix(_BREAK) + "\n")


def _parquet(table: pa.Table) -> bytes:
    buffer = BytesIO()
    pa_parquet.write_table(table, buffer)
    return buffer.getvalue()


def _plain(name: str, column: pa.ChunkedArray) -> list[Any]:
    """Cells as JSON has them, dates in ISO 8601; numbers that are not finite are null.

    Raises:
        ValueError: if one is nothing that JSON has.
    """
    try:
        cells = column.to_pylist()
        return [finite(json.loads(json.dumps(cell, default=_iso))) for cell in cells]
    except (TypeError, ValueError, OverflowError):  # the last two of dates that Python has not
        raise ValueError(
            f"output: the column {name!r} holds bytes, or what else jsonl and csv have no words "
            "for; write parquet"
        ) from None


def _iso(value: Any) -> str:
    if isinstance(value, date | time):
        return value.isoformat()
    raise TypeError


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


_WRITERS: Mapping[str, Callable[[pa.Table], bytes]] = {
    ".csv": _delimited(","),
    ".tsv": _delimited("\t"),
    ".jsonl": json_lines,
    ".parquet": _parquet,
}
"""Suffix -> its writer."""

KINDS = "csv, tsv, jsonl and parquet"
"""For people: all that is written."""
