"""Columns: from a user's table to one whose columns have fixed names and checked contents.

A *readable* table has exactly the columns that one form below names, and labels as ids of the
public label set (-1 where a record has none).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, Image, List, Value
from numpy.typing import NDArray

from .chat_templates import instruction
from .chats import is_chat, turns
from .messages import UnreadableError, did_you_mean, listed

FORMS: Mapping[str, tuple[frozenset[str], ...]] = {
    "sequence-classification": (
        frozenset({"text", "label"}),
        frozenset({"text", "text_pair", "label"}),
    ),
    "causal-lm": (
        frozenset({"text"}),
        frozenset({"prompt", "completion"}),
        frozenset({"prompt", "input", "completion"}),
        frozenset({"messages"}),
    ),
    "image-classification": (frozenset({"image", "label"}),),
}
"""Task -> the sets of columns it can be given."""

AT_ONCE = 1000
"""Records in one slice: bounds what is in memory as Python objects."""

_MOST_LABELS, _LONGEST_NAME, _FEW = 1000, 100, 20
"""Of names that are taken from data; of so few records each may have one of its own."""

_LONGEST_HEADING, _MOST_WORDS = 40, 4
"""Of the name of a column; what is longer may be a record, in a file without a header."""

_CONTENT = {"text", "text_pair", "completion", "messages", "image"}


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which column of the data plays which part. None: not used.

    ``input`` goes with an instruction in ``prompt``, as in Alpaca's data: the two become one
    prompt. ``person`` says whose a record is; it is in no form, and not learned from.
    """

    text: str | None = None
    text_pair: str | None = None
    image: str | None = None
    label: str | None = None
    prompt: str | None = None
    input: str | None = None
    completion: str | None = None
    messages: str | None = None
    person: str | None = None

    def named(self) -> dict[str, str]:
        """Part -> column, for the parts that are used."""
        return {part: column for part, column in asdict(self).items() if column is not None}


def check_columns(columns: Columns, task: str) -> None:
    """See that these columns make a form of ``task``.

    Raises:
        ValueError: naming the forms of the task, or a column that is used twice.
    """
    named = columns.named()
    learned = named.keys() - {"person"}
    if learned not in FORMS[task]:
        order = list(asdict(columns))
        forms = (" + ".join(sorted(form, key=order.index)) for form in FORMS[task])
        here = listed(part for part in named if part in learned)
        raise ValueError(f"columns: {task} takes {', or '.join(forms)}; here are: {here}")
    for part, column in named.items():
        if list(named.values()).count(column) > 1:
            raise ValueError(f"{part}: column {column!r} is named twice")


def require(table: Dataset, column: str, key: str, where: str) -> None:
    """See that ``column``, named by the configuration's ``key``, is there.

    Raises:
        ValueError: with the columns that are.
    """
    names = table.column_names
    if column in names:
        return
    if not all(map(_is_heading, names)):
        raise ValueError(
            f"{key}: column {column!r} is not in {where}; what it has instead does not look like "
            "names of columns and is not shown. Is its header missing?"
        )
    raise ValueError(
        f"{key}: column {column!r} is not in {where}; it has: {listed(names)}"
        f"{did_you_mean(column, names)}"
    )


def readable(table: Dataset, columns: Columns, labels: Sequence[str], where: str) -> Dataset:
    """The columns that are used, under their fixed names, labels as ids.

    Args:
        table: as it was loaded.
        columns: where things are; one of ``FORMS``.
        labels: the public label set; empty for a task without.
        where: what the table is called in an error.

    Raises:
        ValueError: if a column is missing, holds another kind of thing, or a label is not in the
            set (with its row).
    """
    named = columns.named()
    for part, column in named.items():
        require(table, column, part, where)
        _check_kind(table, part, column, where)
    rows = table.select_columns(list(named.values())).with_format("arrow")[:]
    arrays = {part: rows[column] for part, column in named.items()}
    if columns.label is not None:
        feature = table.features[columns.label]
        has_names = isinstance(feature, ClassLabel) and not set(feature.names).isdisjoint(labels)
        # A ClassLabel without a name in common has other names for the same ids.
        values = values_of(table, columns.label) if has_names else table[columns.label][:]
        arrays["label"] = pa.array(_ids(values, labels, where), pa.int64())
    if columns.messages is not None and not _is_plain(table.features[columns.messages]):
        arrays["messages"] = _plain_chats(rows[columns.messages], where)
    if columns.input is not None:
        inputs = arrays.pop("input").to_pylist()
        pairs = zip(arrays["prompt"].to_pylist(), inputs, strict=True)
        arrays["prompt"] = pa.array([instruction(*pair) for pair in pairs], pa.string())
    if columns.person is not None:
        people = (_whole(value) for value in values_of(table, columns.person))
        arrays["person"] = pa.array(
            [None if _is_missing(p) else str(p) for p in people], pa.string()
        )
    return Dataset(pa.table(arrays))


def _is_plain(feature: object) -> bool:
    """Whether these are chats already as templates read them."""
    turn = feature.feature if isinstance(feature, List) else {}
    return not isinstance(turn.get("content"), List) and "from" not in turn


def _plain_chats(chats: pa.ChunkedArray, where: str) -> pa.Array:
    plain = []
    for row, chat in enumerate(chats.to_pylist()):
        try:
            plain.append(turns(chat))
        except UnreadableError as error:
            raise ValueError(f"messages: row {row} (the first is 0) of {where}: {error}") from None
    return pa.array(plain)


def values_of(table: Dataset, column: str) -> list[object]:
    """The values of a column; the ids of a ``ClassLabel`` by their names."""
    feature = table.features[column]
    values: list[object] = table[column][:]
    if not isinstance(feature, ClassLabel):
        return values
    known: dict[object, str] = dict(enumerate(feature.names))
    return [known.get(value, value) for value in values]


def labels_in(tables: Iterable[Dataset], column: str, where: str) -> tuple[str, ...]:
    """The label set that the data shows: the names of a ``ClassLabel``, or its sorted values.

    Raises:
        ValueError: if the column is missing, holds other things than labels, or is empty. The
            label set is published, so that values that look like records are refused.
    """
    found: set[object] = set()
    records = 0
    for table in tables:
        require(table, column, "label", where)
        _check_kind(table, "label", column, where)
        feature = table.features[column]
        if isinstance(feature, ClassLabel):
            return tuple(feature.names)
        found |= {_whole(value) for value in table[column][:] if not _is_missing(value)}
        records += len(table)
    if not found:
        raise ValueError(f"label: column {column!r} of {where} holds no label")
    if len(found) > _MOST_LABELS or not are_names(found, records):
        raise ValueError(
            f"labels: column {column!r} of {where} does not look like labels: it has {len(found)} "
            f"different values in {records} records, or long ones. A label set is public, so it is "
            "not taken from there; give labels, or the right column"
        )
    numbers = sorted(value for value in found if isinstance(value, int))
    words = sorted(str(value) for value in found if not isinstance(value, int))
    return (*map(str, numbers), *words)


def are_names(found: Collection[object], records: int) -> bool:
    """Whether values can be names, of labels or of silos, rather than what records say.

    Args:
        found: the different values.
        records: how many there are in all.
    """
    many = records > _FEW and len(found) > records / 2
    return not many and all(
        len(text := str(value)) <= _LONGEST_NAME and len(text.splitlines()) < 2 for value in found
    )


def is_unlabelled(table: Dataset, column: str) -> bool:
    """Whether every label is -1, as hub data sets mark labels that are kept secret."""
    return column in table.column_names and set(table[column][:]) == {-1}


def filled_rows(table: Dataset) -> NDArray[np.int64]:
    """Rows of a readable table that hold something to learn from.

    Left out is a record without a label, an image, an assistant's turn, or a visible character in
    its texts (where there is a completion: in that).
    """
    kept: list[int] = []
    for first, columns in slices(table):
        cells = zip(*columns.values(), strict=True)
        kept += (row for row, cell in enumerate(cells, first) if _is_filled(columns, cell))
    return np.array(kept, dtype=np.int64)


def slices(table: Dataset) -> Iterator[tuple[int, dict[str, list[Any]]]]:
    """A table as columns of some consecutive records at a time, with the number of the first."""
    for first in range(0, len(table), AT_ONCE):
        yield first, table[first : first + AT_ONCE]


def _is_filled(parts: Iterable[str], cells: Sequence[Any]) -> bool:
    record = dict(zip(parts, cells, strict=True))
    says = any(_says(part, cell) for part, cell in record.items() if part in _CONTENT)
    return says and record.get("label", 0) >= 0


def _says(part: str, value: Any) -> bool:
    """Whether one cell holds something."""
    if value is None:
        return False
    if part == "image":
        return bool(value["bytes"] or value["path"]) if isinstance(value, dict) else len(value) > 0
    if part == "messages":
        said = (turn["content"] for turn in value if turn["role"] == "assistant")
        return any(_is_visible(content) for content in said)
    return _is_visible(value)


def _is_visible(text: str | None) -> bool:
    return text is not None and any(c.isprintable() and not c.isspace() for c in text)


def _is_heading(name: str) -> bool:
    """Whether this is the name of a column, rather than the cell of a record."""
    is_number = name.replace(".", "", 1).lstrip("-").isdigit()
    return not is_number and len(name) <= _LONGEST_HEADING and len(name.split()) <= _MOST_WORDS


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _whole(value: object) -> object:
    """Whole numbers that a reader made floats because some were missing, as they were."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _ids(values: Sequence[object], labels: Sequence[str], where: str) -> list[int]:
    """Positions in ``labels``; -1 where there is no label.

    Whole numbers are ids already, unless the labels themselves are written as whole numbers.
    """
    places = {label: place for place, label in enumerate(labels)}
    are_names = not all(label.lstrip("-").isdigit() for label in labels)
    ids = []
    for row, value in enumerate(values):
        plain = _whole(value)
        if _is_missing(value):
            place: int | None = -1
        elif are_names and isinstance(plain, int) and not isinstance(plain, bool):
            place = plain if 0 <= plain < len(labels) else None
        else:
            place = places.get(str(plain))
        if place is None:
            raise ValueError(_unknown(row, labels, where, number=isinstance(plain, int)))
        ids.append(place)
    return ids


def _unknown(row: int, labels: Sequence[str], where: str, *, number: bool) -> str:
    """The label itself is not told: a wrong column may have been named, and its records quoted."""
    has_ids = number and not set(map(str, range(len(labels)))) <= set(labels)
    ids = f", or as ids 0 to {len(labels) - 1}" if has_ids else ""
    return (
        f"label: row {row} (the first is 0) of {where} has a label outside of the label set; "
        f"the label set is: {listed(labels)}{ids}"
    )


def _check_kind(table: Dataset, part: str, column: str, where: str) -> None:
    feature = table.features[column]
    if _is_kind(feature, part):
        return
    kinds = {
        "label": "labels",
        "messages": "lists of {role, content}, with text in content,",
        "image": "images",
        "person": "names or numbers",
    }
    raise ValueError(
        f"{part}: column {column!r} of {where} does not hold "
        f"{kinds.get(part, 'text')} but {feature}"
    )


def _is_kind(feature: object, part: str) -> bool:
    dtype = feature.dtype if isinstance(feature, Value) else ""
    if dtype == "null":
        return True  # a column without any value: every record in it is empty
    if part in ("label", "person"):
        words = ("int", "uint", "float", "bool", "string", "large_string")
        return isinstance(feature, ClassLabel) or dtype.startswith(words)
    if part == "messages":
        return is_chat(feature)
    if part == "image":
        cell = isinstance(feature, dict) and {"bytes", "path"} <= set(feature)
        kinds = ("binary", "large_binary", "string", "large_string")
        return cell or isinstance(feature, Image) or dtype in kinds
    return dtype in ("string", "large_string")
