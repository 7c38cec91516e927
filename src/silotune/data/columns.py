"""Columns: from a user's table to one whose columns have fixed names and checked contents.

A *readable* table has exactly the columns that one form of its task names, and labels as ids of the
public label set (-1 where a record has none).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, Image, List, Value
from numpy.typing import NDArray

from silotune.objectives import find
from silotune.objectives.task import Target

from .annotations import holds_spans, holds_tags, holds_words, span_ids, tag_ids
from .chat_templates import instruction
from .chats import is_chat, turns
from .kinds import cure, described
from .labels import AS_THEY_ARE, LabelMap, label_text, values_of
from .messages import UnreadableError, did_you_mean, listed
from .targets import Range, is_target, kind_of_target, targets
from .unmarked import unmarked

AT_ONCE = 1000
"""Records in one slice: bounds what is in memory as Python objects."""

_LONGEST_HEADING, _MOST_WORDS = 40, 3
"""Of the name of a column; what is longer may be a record, in a file without a header."""

_KINDS = {
    "words": "lists of words",
    "tags": "lists of tags by name, such as B-NAME,",
    "spans": "lists of {start, end, label}, with whole numbers and a name,",
    "messages": "lists of {role, content}, with text in content,",
    "image": "images",
    "person": "names or numbers",
}
"""What the column of a part holds; any other holds text."""

_LISTS = {"messages": is_chat, "words": holds_words, "tags": holds_tags, "spans": holds_spans}

_CONTENT = {"text", "text_pair", "words", "completion", "messages", "image"}

_WRITTEN = {"source", "target"}
"""Of which a record needs each."""

_ANNOTATIONS = {"tags", "spans"}

_SPAN = pa.struct([(name, pa.int64()) for name in ("start", "end", "label")])


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which column of the data plays which part. None: not used.

    ``input`` goes with an instruction in ``prompt``, as in Alpaca's data: the two become one
    prompt. ``label`` may be several, of which each says whether a record has one label, or holds
    one number. ``person`` says whose a record is; it is in no form, and not learned from.
    """

    text: str | None = None
    text_pair: str | None = None
    words: str | None = None
    tags: str | None = None
    spans: str | None = None
    image: str | None = None
    label: str | tuple[str, ...] | None = None
    prompt: str | None = None
    input: str | None = None
    completion: str | None = None
    source: str | None = None
    target: str | None = None
    messages: str | None = None
    person: str | None = None

    @classmethod
    def of(cls, parts: Mapping[str, str | tuple[str, ...]], person: str | None = None) -> Columns:
        """By part, and whose records are."""
        named: Mapping[str, Any] = parts
        return cls(**named, person=person)

    def named(self) -> dict[str, tuple[str, ...]]:
        """Part -> its columns, for the parts that are used."""
        used = {part: column for part, column in asdict(self).items() if column is not None}
        return {part: (c,) if isinstance(c, str) else tuple(c) for part, c in used.items()}

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns of the target."""
        return self.named().get("label", ())


def check_columns(columns: Columns, task: str) -> None:
    """See that these columns make a form of ``task``.

    Raises:
        ValueError: naming the forms of the task, or a column that is used twice.
    """
    named = columns.named()
    learned = named.keys() - {"person"}
    if learned not in (known := find(task).forms):
        order = list(asdict(columns))
        forms = (" + ".join(sorted(form, key=order.index)) for form in known)
        here = listed(part for part in named if part in learned)
        raise ValueError(f"columns: {task} takes {', or '.join(forms)}; here are: {here}")
    every = [column for columns in named.values() for column in columns]
    for part, columns_of in named.items():
        for column in columns_of:
            if every.count(column) > 1:
                raise ValueError(f"{part}: column {column!r} is named twice")


def require(table: Dataset, column: str, key: str, where: str) -> None:
    """See that ``column``, named by the configuration's ``key``, is there.

    Raises:
        ValueError: with the columns that are.
    """
    names = table.column_names
    if column in names:
        return
    if not all(map(is_heading, names)):
        raise ValueError(
            f"{key}: column {column!r} is not in {where}; what it has instead does not look like "
            "names of columns and is not shown. Is its header missing?"
        )
    raise ValueError(
        f"{key}: column {column!r} is not in {where}; it has: {listed(names)}"
        f"{did_you_mean(column, names)}"
    )


def require_kind(
    table: Dataset,
    columns: Sequence[str],
    part: str,
    where: str,
    target: Target = "label",
) -> None:
    """See that the columns of a part are there and hold what it needs.

    Args:
        table: as it was loaded.
        columns: of the part.
        part: of a record.
        where: what the table is called in an error.
        target: what is learned, if the part is the label.

    Raises:
        ValueError: in words.
    """
    for column in columns:
        require(table, column, part, where)
        feature = table.features[column]
        if part == "label":
            several = len(columns) > 1
            fits, kind = is_target(feature, target, several), kind_of_target(target, several)
        else:
            fits, kind = _is_kind(feature, part), _KINDS.get(part, "text")
        if not fits:
            raise ValueError(
                f"{part}: column {column!r} of {where} does not hold {kind} but "
                f"{described(feature)}; {cure(part, target, several=len(columns) > 1)}"
            )


def readable(
    table: Dataset,
    columns: Columns,
    labels: Sequence[str],
    where: str,
    label_map: LabelMap = AS_THEY_ARE,
    target: Target = "label",
    within: Range = None,
) -> Dataset:
    """The columns that are used, under their fixed names; labels as ids, marks or numbers.

    Args:
        table: as it was loaded.
        columns: where things are; a form of its task.
        labels: the public label set, of tokens the tags; empty for a task without.
        where: what the table is called in an error.
        label_map: what the data call a label -> what it is called here; None: no label.
        target: what is learned.
        within: the lowest and the highest number that is learned, where they are declared.

    Raises:
        ValueError: if a column is missing, holds another kind of thing, or a label is not in the
            set (with its row).
    """
    named = columns.named()
    for part, columns_of in named.items():
        require_kind(table, columns_of, part, where, target)
    wanted = [column for columns_of in named.values() for column in columns_of]
    rows = table.with_format("arrow", columns=wanted)[:]
    arrays = {part: rows[columns_of[0]] for part, columns_of in named.items()}
    if columns.labels:
        told = (labels, where, label_map, target, within)
        arrays["label"] = targets(table, columns.labels, *told)
    if columns.words is not None and columns.tags is not None:
        own = tag_ids(table, columns.words, columns.tags, labels, where, label_map)
        arrays["tags"] = pa.array(own, pa.list_(pa.int64()))
    if columns.text is not None and columns.spans is not None:
        entities = span_ids(table, columns.text, columns.spans, labels, where, label_map)
        arrays["spans"] = pa.array(entities, pa.list_(_SPAN))
    if columns.messages is not None and not _is_plain(table.features[columns.messages]):
        arrays["messages"] = _plain_chats(rows[columns.messages], where)
    if columns.input is not None:
        inputs = arrays.pop("input").to_pylist()
        pairs = zip(arrays["prompt"].to_pylist(), inputs, strict=True)
        arrays["prompt"] = pa.array([instruction(*pair) for pair in pairs], pa.string())
    if columns.person is not None:
        people = [label_text(value) for value in values_of(table, columns.person)]
        arrays["person"] = pa.array(people, pa.string())
    return unmarked(pa.table(arrays))


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


def filled_rows(table: Dataset) -> NDArray[np.int64]:
    """Rows of a readable table that hold something to learn from.

    Left out is a record without a label, tags or spans (an empty list is some), an image, an
    assistant's turn, or a visible character in its texts (where there is a completion: in that; in
    a source and its target: in each).
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
    if _WRITTEN & record.keys():
        return all(_says(part, record[part]) for part in _WRITTEN)
    says = any(_says(part, cell) for part, cell in record.items() if part in _CONTENT)
    annotated = all(record[part] is not None for part in _ANNOTATIONS & record.keys())
    return says and annotated and _is_target(record.get("label", 0))


def _is_target(value: Any) -> bool:
    """Ids count from 0; marks and numbers are lists."""
    return isinstance(value, list) or (value is not None and value >= 0)


def _says(part: str, value: Any) -> bool:
    """Whether one cell holds something."""
    if value is None:
        return False
    if part == "image":
        return bool(value["bytes"] or value["path"]) if isinstance(value, dict) else len(value) > 0
    if part == "messages":
        said = (turn["content"] for turn in value if turn["role"] == "assistant")
        return any(is_visible(content) for content in said)
    if part == "words":
        return any(map(is_visible, value))
    return is_visible(value)


def is_visible(text: str | None) -> bool:
    """Whether a text has a character that can be seen."""
    return text is not None and any(c.isprintable() and not c.isspace() for c in text)


def is_heading(name: str) -> bool:
    """Whether this is the name of a column, rather than the cell of a record."""
    is_number = name.replace(".", "", 1).lstrip("-").isdigit()
    return not is_number and len(name) <= _LONGEST_HEADING and len(name.split()) <= _MOST_WORDS


def _is_kind(feature: object, part: str) -> bool:
    dtype = feature.dtype if isinstance(feature, Value) else ""
    if dtype == "null":
        return True  # a column without any value: every record in it is empty
    if part == "person":
        words = ("int", "uint", "float", "bool", "string", "large_string")
        return isinstance(feature, ClassLabel) or dtype.startswith(words)
    if part in _LISTS:
        return _LISTS[part](feature)
    if part == "image":
        cell = isinstance(feature, dict) and {"bytes", "path"} <= set(feature)
        kinds = ("binary", "large_binary", "string", "large_string")
        return cell or isinstance(feature, Image) or dtype in kinds
    return dtype in ("string", "large_string")
