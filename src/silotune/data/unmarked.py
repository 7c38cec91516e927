"""Unmarked: tables that are made, and cut, without a mark of what is in them.

``datasets`` hashes a table's content and description whenever one is made or cut, so that what was
done to it can be found again on the disk. Nothing of ours is looked for there, and with thousands
of small tables the hashes took longer than all that is done to the records. So these get one drawn
by chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray

_PLAIN = (str, int, float, bool)


def unmarked(table: pa.Table) -> Dataset:
    """A table of Arrow's as one of ``datasets``."""
    return Dataset(table, fingerprint=uuid4().hex)


def rows_of(table: Dataset, rows: NDArray[np.int64]) -> Dataset:
    """Some rows of a table, in this order; the table itself if these are all of it."""
    if np.array_equal(rows, np.arange(len(table))):
        return table
    return table.select(rows, new_fingerprint=uuid4().hex)


def of_plain_values(records: Sequence[Mapping[str, Any]]) -> Dataset | None:
    """Records as ``Dataset.from_list`` reads them, if each column is of text, or of one number.

    Args:
        records: one or more; the first names the columns.

    Returns:
        None where a column may need to be looked at more closely.

    Raises:
        OverflowError: if Arrow has no room for a number.
        ValueError: if it cannot hold a text.
    """
    columns = {name: [record.get(name) for record in records] for name in records[0]}
    if not columns or not all(map(_is_plain, columns, columns.values())):
        return None
    return unmarked(pa.table({name: pa.array(values) for name, values in columns.items()}))


def _is_plain(name: object, values: Sequence[Any]) -> bool:
    """Whether a column has a name, and values of one plain type."""
    kinds = {type(value) for value in values if value is not None}
    return type(name) is str and len(kinds) == 1 and kinds.issubset(_PLAIN)
