"""Annotations: entities of records, as tags of words or as spans of texts, read and checked.

What is wrong is told by its row; no word, tag or text of a record is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from datasets import ClassLabel, Dataset, LargeList, List, Value

from silotune.objectives.iob2 import OUTSIDE, beginning

from .labels import AS_THEY_ARE, LabelMap, label_text
from .messages import listed

Span = Mapping[str, Any]
"""``start`` and ``end``, in characters, and ``label``."""

_TEXT, _WHOLE = ("string", "large_string"), ("int", "uint")
"""How the types of plain values begin."""


def holds_words(feature: object) -> bool:
    """Whether a column is of lists of texts."""
    return _is(_inside(feature), (*_TEXT, "null"))


def holds_tags(feature: object) -> bool:
    """Whether a column is of lists of names of tags."""
    return isinstance(_inside(feature), ClassLabel) or holds_words(feature)


def holds_spans(feature: object) -> bool:
    """Whether a column is of lists of {start, end, label}; of empty ones, if there is no entity."""
    inner = _inside(feature)
    if isinstance(inner, Value):
        return bool(inner.dtype == "null")
    if not isinstance(inner, dict) or not {"start", "end", "label"} <= set(inner):
        return False
    whole = all(_is(inner[place], _WHOLE) for place in ("start", "end"))
    return whole and (isinstance(inner["label"], ClassLabel) or _is(inner["label"], _TEXT))


def tag_ids(
    table: Dataset,
    words: str,
    tags: str,
    labels: Sequence[str],
    where: str,
    label_map: LabelMap = AS_THEY_ARE,
) -> list[list[int] | None]:
    """Ids of the tags of each record; None of one that has none.

    Args:
        table: with both columns.
        words: column of words.
        tags: column of their tags.
        labels: all tags (IOB2), in order of ids.
        where: what the table is called in an error.
        label_map: what the data call a type of entity -> what it is called here; None: it is none.

    Raises:
        ValueError: naming a row whose tags are not those of its words, or no IOB2 of these labels.
    """
    named = _names(_inside(table.features[tags]))
    ids, found = {tag: i for i, tag in enumerate(labels)}, list[list[int] | None]()
    for row, (said, own) in enumerate(zip(table[words][:], table[tags][:], strict=True)):
        if own is None or said is None:
            found.append(None)
            continue
        if len(own) != len(said):
            raise ValueError(
                f"tags: {_row(row, where)} has {len(said)} words and {len(own)} tags; give every "
                "word one"
            )
        read = [ids.get(_mapped(named(tag), label_map), -1) for tag in own]
        if -1 in read:
            raise ValueError(
                f"tags: {_row(row, where)} has a tag that is not O, or B- or I- and one of labels; "
                "add its type there, or say in label_map what it means, or null for no entity; "
                f"labels are: {_types(labels)}"
            )
        if _begins_inside(read):
            raise ValueError(
                f"tags: {_row(row, where)} has an I- tag without a B- or I- of its type before it; "
                "write IOB2, in which every entity begins with B-"
            )
        found.append(read)
    return found


def span_ids(
    table: Dataset,
    text: str,
    spans: str,
    labels: Sequence[str],
    where: str,
    label_map: LabelMap = AS_THEY_ARE,
) -> list[list[dict[str, int]] | None]:
    """Entities of each record by where they begin, ``label`` the id of its B- tag; None if unknown.

    Args:
        table: with both columns.
        text: column of texts.
        spans: column of their entities.
        labels: all tags (IOB2), in order of ids.
        where: what the table is called in an error.
        label_map: what the data call a type of entity -> what it is called here; None: it is none.

    Raises:
        ValueError: naming a row with a span that is none, or is of no known type.
    """
    inner = _inside(table.features[spans])
    named = _names(inner["label"] if isinstance(inner, dict) else None)
    ids = {tag.removeprefix("B-"): i for i, tag in enumerate(labels) if tag.startswith("B-")}
    found = list[list[dict[str, int]] | None]()
    for row, (said, own) in enumerate(zip(table[text][:], table[spans][:], strict=True)):
        if own is None:
            found.append(None)
            continue
        kept = []
        for span in own:
            kind = label_text(named(span["label"]))
            kind = label_map.get(kind, kind) if kind is not None else ""
            if kind is not None:
                kept.append({**_places(span), "label": ids.get(kind, -1)})
        kept.sort(key=lambda span: (span["start"], span["end"]))
        if wrong := _wrong(kept, len(said or "")):
            known = f"; labels are: {_types(labels)}" if wrong == _UNKNOWN else ""
            raise ValueError(f"spans: {_row(row, where)} has {wrong}{known}")
        found.append(kept)
    return found


def types_in(table: Dataset, column: str) -> tuple[str, ...]:
    """The types of entities that a column of tags or of spans names, in order of the alphabet."""
    inner = _inside(table.features[column])
    kinds: set[str | None]
    if isinstance(inner, dict):
        named = _names(inner["label"])
        kinds = {label_text(named(one["label"])) for own in table[column][:] for one in own or ()}
    else:
        named = _names(inner)
        tags = {label_text(named(tag)) for own in table[column][:] for tag in own or ()}
        kinds = {_split(tag)[1] for tag in tags if tag is not None}
    return tuple(sorted(kind for kind in kinds if kind))


def are_tags(names: Iterable[str]) -> bool:
    """Whether texts look like tags of entities: ``O``, ``B-X``, ``I-X``."""
    found = set(names)
    return bool(found - {"O"}) and all(n == "O" or all(_split(n)) for n in found)


def named_tags(table: Dataset, column: str) -> set[str]:
    """The different tags of a column, by name."""
    named = _names(_inside(table.features[column]))
    return {str(named(tag)) for own in table[column][:] for tag in own or ()}


_UNKNOWN = (
    "a span whose label is not in labels; add it there, or say in label_map what it means, or null "
    "to leave such spans out"
)


def _wrong(spans: Sequence[Mapping[str, int]], length: int) -> str | None:
    """What is wrong with the spans of a text of so many characters, which are in their order."""
    before = 0
    for span in spans:
        start, end = span["start"], span["end"]
        if start < 0 or end > length:
            return "a span that lies outside of its text; count characters from 0"
        if start >= end:
            return "a span without a character; its end is the first character after it"
        if start < before:
            return "spans that cross or lie in one another; keep one of them"
        if span["label"] < 0:
            return _UNKNOWN
        before = end
    return None


def _places(span: Span) -> dict[str, int]:
    """Where a span is; what is missing lies outside of every text."""
    return {end: -1 if span[end] is None else int(span[end]) for end in ("start", "end")}


def _begins_inside(tags: Sequence[int]) -> bool:
    """Whether an entity begins with I-."""
    before = OUTSIDE
    for tag in tags:
        if tag != OUTSIDE and tag % 2 == 0 and before not in (tag, tag - 1):
            return True
        before = tag
    return False


def _mapped(tag: object, label_map: LabelMap) -> str:
    """A tag with the name that its type has here."""
    text = label_text(tag) or ""
    place, kind = _split(text)
    if kind not in label_map:
        return text
    mapped = label_map[kind]
    return "O" if mapped is None else f"{place}-{mapped}"


def _split(tag: str) -> tuple[str, str]:
    """B or I, and the type; both empty of anything else."""
    place, _, kind = tag.partition("-")
    return (place, kind) if place in ("B", "I") and kind else ("", "")


def _types(labels: Sequence[str]) -> str:
    return listed(tag.removeprefix("B-") for tag in labels[beginning(0) :: 2])


def _inside(feature: object) -> object:
    """What the lists of a column hold; None if it is of no lists."""
    return feature.feature if isinstance(feature, List | LargeList) else None


def _is(feature: object, kinds: tuple[str, ...]) -> bool:
    """Whether values are of a plain type that is called so."""
    return isinstance(feature, Value) and str(feature.dtype).startswith(kinds)


def _names(feature: object) -> Any:
    """From a value to its name; the ids of a ``ClassLabel`` have names of their own."""
    if not isinstance(feature, ClassLabel):
        return lambda value: value
    known = dict(enumerate(feature.names))
    return lambda value: known.get(value, value)


def _row(row: int, where: str) -> str:
    return f"row {row} (the first is 0) of {where}"
