"""Targets: what a record is learned with, from one column or several, checked before training.

A target is the id of a label, a 0 or 1 for each label of the set, a number for each column, or a
score within a range that was declared.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, List, Value
from numpy.typing import NDArray

from silotune.objectives.iob2 import kind_of
from silotune.objectives.task import Target

from .labels import LabelMap, ids_of, label_text, labels_in, place_of

_WHOLE = ("int", "uint", "bool")
_WORDS = (*_WHOLE, "float", "string", "large_string")

_NUMBERS = ("numbers", "score")

_LARGEST = float(np.finfo(np.float32).max)
"""Of a number that a record is learned with."""

Cells = Sequence[Any]

Range = tuple[float, float] | None


def is_target(feature: object, target: Target, several: bool) -> bool:
    """Whether a column can hold targets.

    Args:
        feature: its type.
        target: which kind.
        several: whether it is one of several columns.
    """
    if target in _NUMBERS:
        return _is_value(feature, (*_WHOLE, "float"))
    if target == "labels" and several:
        return _is_value(feature, (*_WHOLE, "float"))
    if target == "labels":
        return isinstance(feature, List) and _is_label(feature.feature)
    return _is_label(feature)


def kind_of_target(target: Target, several: bool) -> str:
    """What such a column holds, in words."""
    if target in _NUMBERS:
        return "numbers"
    if target == "labels":
        return "0 and 1" if several else "lists of labels"
    return "labels"


def label_names(
    tables: Iterable[Dataset], column: str, where: str, label_map: LabelMap, target: Target
) -> tuple[str, ...]:
    """The label set that the data show.

    Raises:
        ValueError: if there is none, or asking about what may be no labels.
    """
    if target == "label":
        return labels_in(tables, column, where, label_map)
    of_all = (flat(table, column) for table in tables)
    return labels_in([table for table in of_all if len(table)], column, where, label_map)


def targets(
    table: Dataset,
    columns: Sequence[str],
    labels: Sequence[str],
    where: str,
    label_map: LabelMap,
    target: Target,
    within: Range = None,
) -> pa.Array:
    """By row: an id (-1 where there is none), or a list, null where there is none.

    Args:
        table: as it was loaded.
        columns: of the target.
        labels: the public label set; of numbers, what they are called.
        where: what the table is called in an error.
        label_map: what the data call a label -> what it is called here; None: no label.
        target: which kind.
        within: the lowest and the highest number that there may be; None: any.

    Raises:
        ValueError: naming the first row that has something else.
    """
    if target == "label":
        return pa.array(ids_of(table, columns[0], labels, where, label_map), pa.int64())
    if target in _NUMBERS:
        numbers = [_numbers(table, column, where) for column in columns]
        _check_within(numbers, columns, where, within)
        return pa.array(_rows(numbers), pa.list_(pa.float64()))
    if _is_list(table, columns):
        return pa.array(_listed(table, columns[0], labels, where, label_map), pa.list_(pa.int8()))
    marks = [_marks(table, column, where) for column in columns]
    return pa.array(_rows(marks), pa.list_(pa.int8()))


def target_array(table: Dataset) -> NDArray[Any] | None:
    """Of a readable table: ids (N,) int64, or marks or numbers (N, C) float32; None without."""
    if "label" not in table.column_names:
        return None
    kind = np.float32 if isinstance(table.features["label"], List) else np.int64
    return np.asarray(table["label"][:], dtype=kind)


def label_counts(table: Dataset, labels: Sequence[str]) -> dict[str, int]:
    """Records with each label, of a readable table, or entities of each type; empty of others."""
    if "label" not in table.column_names:
        return _entity_counts(table, labels)
    feature = table.features["label"]
    if isinstance(feature, List) and feature.feature == Value("float64"):
        return {}
    cells = np.asarray(table["label"][:], dtype=np.int64)
    if isinstance(feature, List):
        counts = cells.reshape(-1, len(labels)).sum(axis=0)
    else:
        counts = np.bincount(cells, minlength=len(labels))
    return dict(zip(labels, counts.tolist(), strict=True))


def _entity_counts(table: Dataset, tags: Sequence[str]) -> dict[str, int]:
    if "tags" in table.column_names:
        found = Counter(tag for own in table["tags"][:] for tag in own)
    elif "spans" in table.column_names:
        found = Counter(span["label"] for own in table["spans"][:] for span in own)
    else:
        return {}
    begins = {i: tag for i, tag in enumerate(tags) if kind_of(i) is not None}
    return {tag.removeprefix("B-"): found[i] for i, tag in begins.items()}


def _is_label(feature: object) -> bool:
    return isinstance(feature, ClassLabel) or _is_value(feature, _WORDS)


def _is_value(feature: object, kinds: tuple[str, ...]) -> bool:
    dtype = feature.dtype if isinstance(feature, Value) else ""
    return dtype == "null" or dtype.startswith(kinds)


def _is_list(table: Dataset, columns: Sequence[str]) -> bool:
    return len(columns) == 1 and isinstance(table.features[columns[0]], List)


def flat(table: Dataset, column: str) -> Dataset:
    """A column of all labels of all records, one after another; what a record repeats, once."""
    feature = table.features[column]
    inner = feature.feature if isinstance(feature, List) else feature
    cells = [label for cell in table[column][:] for label in dict.fromkeys(cell or ())]
    if isinstance(inner, ClassLabel):
        return Dataset.from_dict({column: cells}).cast_column(column, inner)
    return Dataset.from_dict({column: list(map(label_text, cells))})


def _rows(cells: Sequence[Cells]) -> list[list[Any] | None]:
    """One list a row; None where a column has nothing."""
    return [None if None in row else list(row) for row in zip(*cells, strict=True)]


def _listed(
    table: Dataset, column: str, labels: Sequence[str], where: str, label_map: LabelMap
) -> list[list[int] | None]:
    feature = table.features[column].feature
    named = dict(enumerate(feature.names)) if isinstance(feature, ClassLabel) else {}
    rows: list[list[int] | None] = []
    for row, cell in enumerate(table[column][:]):
        if cell is None:
            rows.append(None)
            continue
        marks = [0] * len(labels)
        for value in cell:
            place = place_of(named.get(value, value), labels, row, where, label_map)
            if place is not None:
                marks[place] = 1
        rows.append(marks)
    return rows


def _check_within(
    numbers: Sequence[Cells], columns: Sequence[str], where: str, within: Range
) -> None:
    if within is None:
        return
    low, high = within
    for column, cells in zip(columns, numbers, strict=True):
        for row, number in enumerate(cells):
            if number is not None and not low <= number <= high:
                raise ValueError(
                    f"label: row {row} (the first is 0) of {where} has in {column!r} a number "
                    f"outside of the declared score_range {low:g} to {high:g}; declare what scores "
                    "there may be, or leave the cell empty to leave its record out"
                )


def _marks(table: Dataset, column: str, where: str) -> list[int | None]:
    marks: list[int | None] = []
    for row, value in enumerate(table[column][:]):
        if value is None or (isinstance(value, float) and math.isnan(value)):
            marks.append(None)
        elif value in (0, 1):
            marks.append(int(value))
        else:
            raise ValueError(
                f"label: row {row} (the first is 0) of {where} has in {column!r} what is neither 0 "
                "nor 1; write 1 where a record has the label and 0 where it has not"
            )
    return marks


def _numbers(table: Dataset, column: str, where: str) -> list[float | None]:
    numbers: list[float | None] = []
    for row, value in enumerate(table[column][:]):
        number = None if value is None else float(value)
        if number is not None and abs(number) > _LARGEST:
            raise ValueError(
                f"label: row {row} (the first is 0) of {where} has in {column!r} a number "
                f"beyond {_LARGEST:.2g}; write the number, or leave the cell empty to leave its "
                "record out"
            )
        numbers.append(None if number is None or math.isnan(number) else number)
    return numbers
