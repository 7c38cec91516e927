"""Formats: the bytes of one data file as a table, told by a suffix.

Read directly, so that no text is reinterpreted: the words "NA" and "null" in a csv stay words, and
a broken line of json is named by its number. What goes wrong is said in words of our own, because
those of the libraries quote records.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.ipc as pa_ipc
import pyarrow.parquet as pa_parquet

from .chats import plain_chat
from .delimited import read_delimited
from .encodings import decoded
from .messages import UnreadableError, did_you_mean, listed

Contents = Mapping[str, Callable[[bytes, "FileOptions"], pa.Table]]


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """How files are read.

    Attributes:
        image: column that may hold image paths; relative ones are taken from the file's folder.
        delimiter: between the columns of a csv or tsv file; None: a comma, or a tab.
        encoding: of text files, as Python calls it; None: UTF-8.
        sheet: of an xlsx file, by its name; None: the only one that holds something.
        as_written: whether cells of a csv or tsv file stay the texts that they are.
    """

    image: str | None = None
    delimiter: str | None = None
    encoding: str | None = None
    sheet: str | None = None
    as_written: bool = False


def _csv(content: bytes, options: FileOptions) -> pa.Table:
    return _delimited(content, ",", options)


def _tsv(content: bytes, options: FileOptions) -> pa.Table:
    return _delimited(content, "\t", options)


def _delimited(content: bytes, usual: str, options: FileOptions) -> pa.Table:
    table = read_delimited(content, usual, options.delimiter, options.encoding)
    if not options.as_written:
        return table
    return read_delimited(
        content, usual, options.delimiter, options.encoding, as_text=table.column_names
    )


def _json(content: bytes, options: FileOptions) -> pa.Table:
    """An array of objects, or one object a line; a missing key is null."""
    text = decoded(content, options.encoding)
    if text.lstrip().startswith("["):
        rows = _value(text, 1)
    else:
        lines = enumerate(text.split("\n"), start=1)
        rows = [_value(line, number) for number, line in lines if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise UnreadableError("every record must be an object, {...}")
    names = dict.fromkeys(name for row in rows for name in row)
    return _table({name: [row.get(name) for row in rows] for name in names})


def _parquet(content: bytes, _options: FileOptions) -> pa.Table:
    return pa_parquet.ParquetFile(pa.BufferReader(content)).read()


def _arrow(content: bytes, _options: FileOptions) -> pa.Table:
    """Arrow's file, which Feather is today, and its stream."""
    source = pa.BufferReader(content)
    is_file = content.startswith(b"ARROW1")
    table = (pa_ipc.open_file(source) if is_file else pa_ipc.open_stream(source)).read_all()
    table.validate(full=True)  # what is damaged would be read from anywhere in memory
    return table


def _xlsx(content: bytes, options: FileOptions) -> pa.Table:
    """One sheet; its first row has the names of columns."""
    try:
        from openpyxl import load_workbook
    except ImportError:
        raise UnreadableError("xlsx needs openpyxl: pip install 'silotune[excel]'") from None
    try:
        book = load_workbook(BytesIO(content), read_only=True, data_only=True)
        sheets = {s.title: [*filter(_is_filled, s.values)] for s in book.worksheets}
    except Exception:  # it raises kinds of its own, of zip and of xml
        raise UnreadableError("it is no sound xlsx file") from None
    filled = _sheet(sheets, options.sheet)
    if not filled:
        return pa.table({})
    names, *rows = filled
    columns = zip(*rows, strict=True) if rows else ([] for _ in names)
    named = [(name, list(cells)) for name, cells in zip(names, columns, strict=True)]
    if any(name is None and _is_filled(cells) for name, cells in named):
        raise UnreadableError("a column of it has no name in the first row")
    return _table({str(name): cells for name, cells in named if name is not None})


def _sheet(sheets: Mapping[str, list[Any]], name: str | None) -> list[Any]:
    """The filled rows of the sheet that was named, or of the only one that has some.

    Raises:
        UnreadableError: if there is no such sheet, or several to choose from.
    """
    filled = {title: rows for title, rows in sheets.items() if rows}
    if name is not None and name not in sheets:
        raise UnreadableError(
            f"it has no sheet {name!r}; it has: {listed(filled)}{did_you_mean(name, filled)}",
            field="sheet",
        )
    if name is None and len(filled) > 1:
        largest = max(filled, key=lambda title: len(filled[title]))
        raise UnreadableError(
            f"{len(filled)} of its sheets hold something: {listed(filled)}; set sheet to the name "
            f"of one, such as {largest!r}, the largest",
            field="sheet",
            answers={"sheet": largest},
        )
    return sheets[name] if name is not None else next(iter(filled.values()), [])


FORMATS: Contents = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".json": _json,
    ".jsonl": _json,
    ".parquet": _parquet,
    ".feather": _arrow,
    ".arrow": _arrow,
    ".xlsx": _xlsx,
}
"""Suffix -> its reader."""


def _is_filled(row: Iterable[object]) -> bool:
    return any(cell is not None for cell in row)


def _value(text: str, first: int) -> Any:
    """What a text says that begins in this line of a file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first + error.lineno - 1
        raise UnreadableError(f"line {line} is not JSON ({error.msg})") from None


def _table(columns: Mapping[str, Sequence[object]]) -> pa.Table:
    return pa.table({name: _column(name, values) for name, values in columns.items()})


def _column(name: str, values: Sequence[object]) -> pa.Array:
    """Values of one kind; turns of chats may say what they say as text or in parts."""
    for told in (values, [plain_chat(value) for value in values]):
        try:
            return pa.array(told)
        except pa.ArrowException:
            continue
    raise UnreadableError(
        f"the values of {name!r} are of different kinds; make them all text, or all numbers"
    )
