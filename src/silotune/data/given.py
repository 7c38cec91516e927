"""Given: tables that a program hands over, as objects or by where they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
from datasets import Dataset

from .formats import FileOptions
from .loading import load
from .unmarked import of_plain_values

Table: TypeAlias = Dataset | Sequence[Mapping[str, Any]] | str | Path
"""A data set, a list of records, or a file or folder."""


def table_of(table: Table, where: str, files: FileOptions | None = None) -> Dataset:
    """A table that somebody gives.

    Args:
        table: as given.
        where: the field, and whose it is, for messages.
        files: how single files are read.

    Raises:
        ValueError: if it is no table, or has a column of mixed types.
    """
    check_table(table, where)
    if isinstance(table, str | Path):
        source = load(str(table), files=files)
        if source.train is None:
            raise ValueError(f"{where}: {table} has a folder for each client itself")
        table = source.train
    elif not isinstance(table, Dataset):
        table = _of_records(table, where)
    return table


def filled_table_of(table: Table, where: str, files: FileOptions | None = None) -> Dataset:
    """The same, with one record or more.

    Raises:
        ValueError: also if it has none.
    """
    found = table_of(table, where, files)
    if len(found) == 0:
        raise ValueError(f"{where}: has no records")
    return found


def check_table(table: object, where: str) -> None:
    """See that something is of the kind of a table; nothing is opened.

    Args:
        table: as given.
        where: the field, and whose it is, for messages.

    Raises:
        ValueError: naming its type only, because what it holds is private.
    """
    if isinstance(table, Dataset | str | Path):
        return
    if not isinstance(table, Sequence):
        found = type(table).__name__
    else:
        found = next((type(r).__name__ for r in table if not isinstance(r, Mapping)), "")
        found = found and f"{type(table).__name__} of {found}"
    if found:
        raise ValueError(
            f"{where}: give a datasets.Dataset, a list of dicts, a file or a folder, not {found}"
        )


def _of_records(records: Sequence[Mapping[str, Any]], where: str) -> Dataset:
    """A table of dicts; where Arrow cannot hold them, its own words would quote a value."""
    table = _held(records)
    if table is not None:
        return table
    alone = {name: [{name: record.get(name)} for record in records] for name in records[0]}
    column = next((f"column {name!r}" for name in alone if _held(alone[name]) is None), "a column")
    raise ValueError(
        f"{where}: {column} holds values of several types, or of one that no table holds; make "
        "them all text, or all numbers"
    )


def _held(records: Sequence[Mapping[str, Any]]) -> Dataset | None:
    """The records as a table, if their values have types that go together."""
    try:
        plain = of_plain_values(records) if records else None
        return plain or Dataset.from_list([dict(record) for record in records])
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return None
