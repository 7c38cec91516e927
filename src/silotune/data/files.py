"""Files: one local csv, json, jsonl or parquet file as a table in memory.

Read directly, so that nothing is cached and no text is reinterpreted: the words "NA" and "null"
in a csv stay words, and a broken line of json is named by its number.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet
from datasets import Dataset

FORMATS = (".csv", ".json", ".jsonl", ".parquet")
"""Suffixes that can be read; text files also with ``.gz`` behind."""

_OTHER_COLUMNS = re.compile(r"(Row #\d+: )?Expected \d+ columns, got \d+")
"""What may be told of Arrow's words: numbers."""

_SHARD = re.compile(r"-\d+-of-\d+$")


class _UnreadableError(ValueError):
    """In words of our own."""


def part_name(file_name: str) -> str:
    """What a file is called as a part: ``train`` for train.csv.gz and train-0-of-2.parquet."""
    name = file_name.removesuffix(".gz")
    for suffix in FORMATS:
        name = name.removesuffix(suffix)
    return _SHARD.sub("", name)


def read_file(path: Path, image: str | None = None) -> Dataset:
    """Read one file.

    Args:
        path: the file, told by its suffix.
        image: a column that may hold image paths; relative ones are taken from the file's folder.

    Raises:
        ValueError: if the file is of another kind or broken.
    """
    suffix = Path(path.name.removesuffix(".gz")).suffix
    if suffix not in FORMATS:
        raise ValueError(
            f"clients: {path} is none of csv, json, jsonl and parquet (each by its suffix)"
        )
    try:
        table = _plain(_arrow(path, suffix))
        return Dataset(_anchored(table, image, path.parent) if image else table)
    except (OSError, ValueError, EOFError, zlib.error, pa.ArrowException) as error:
        raise ValueError(f"clients: cannot read {path}: {_cause(error, suffix)}") from None


def _cause(error: Exception, suffix: str) -> str:
    """Why a file cannot be read, in words that no record is in: Arrow's own quote cells."""
    if isinstance(error, _UnreadableError):
        return str(error)
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno} is not JSON ({error.msg})"
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    counted = _OTHER_COLUMNS.search(str(error))
    return counted[0] if counted else f"it is no sound {suffix.removeprefix('.')} file"


def _arrow(path: Path, suffix: str) -> pa.Table:
    if suffix == ".parquet":
        return pa_parquet.ParquetFile(path).read()
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    return _csv(content) if suffix == ".csv" else _json(content.decode("utf-8-sig"))


def _csv(content: bytes) -> pa.Table:
    options = pa_csv.ParseOptions(newlines_in_values=True)
    return pa_csv.read_csv(pa.BufferReader(content), parse_options=options)


def _json(text: str) -> pa.Table:
    """An array of objects, or one object a line; a missing key is null."""
    if text.lstrip().startswith("["):
        rows = json.loads(text)
    else:
        lines = enumerate(text.split("\n"), start=1)
        rows = [_object(line, number) for number, line in lines if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise _UnreadableError("every record must be an object, {...}")
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: _column(name, [row.get(name) for row in rows]) for name in names})


def _object(line: str, number: int) -> object:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise _UnreadableError(f"line {number} is not JSON ({error.msg})") from None


def _column(name: str, values: list[object]) -> pa.Array:
    try:
        return pa.array(values)
    except pa.ArrowException:
        raise _UnreadableError(
            f"the values of {name!r} are of different kinds; make them all text, or all numbers"
        ) from None


def _plain(table: pa.Table) -> pa.Table:
    """Dictionary-encoded columns (pandas' categories) as their values."""
    types = [f.type.value_type if pa.types.is_dictionary(f.type) else f.type for f in table.schema]
    fields = [f.with_type(t) for f, t in zip(table.schema, types, strict=True)]
    return table.cast(pa.schema(fields, metadata=table.schema.metadata))


def _anchored(table: pa.Table, image: str, folder: Path) -> pa.Table:
    """Image paths made absolute; bytes stay as they are."""
    place = table.schema.get_field_index(image)
    kind = table.schema.field(place).type if place >= 0 else pa.null()
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return table
    paths = [name and str((folder / name).resolve()) for name in table[image].to_pylist()]
    return table.set_column(place, image, pa.array(paths, kind))
