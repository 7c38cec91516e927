"""Labels: which classes there are, and which one each record has.

A label is told by its text, without spaces around it; an empty one is none. What a label column
holds is of records, and is not told: only labels that somebody declared are public. So whatever
makes a column of labels doubtful is a question, asked before training, with the key that answers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache

from datasets import ClassLabel, Dataset

from silotune.core.names import case_twins

from .messages import listed

LabelMap = Mapping[str, str | None]
"""What the data call a label -> what it is called here; None: records with it have no label."""

AS_THEY_ARE: LabelMap = {}
"""Every label is called what the data call it."""

_MOST_LABELS, _LONGEST_NAME, _FEW = 1000, 100, 20
"""Of names that are taken from data; of so few records each may have one of its own."""

NUMBERS = (
    "numbers are no classes: learn them as numbers, by task: regression; or write a column of "
    "classes, such as low, middle and high, into the data; or, of a few numbers, name the classes "
    "in labels, or say in label_map what each of them means, such as {'0.5': low}"
)
"""What to do about labels with fractions."""

_NONE = "-1"
"""How data sets usually mark a record whose label is not given."""


def values_of(table: Dataset, column: str) -> list[object]:
    """The values of a column; the ids of a ``ClassLabel`` by their names."""
    feature = table.features[column]
    values: list[object] = table[column][:]
    if not isinstance(feature, ClassLabel):
        return values
    known: dict[object, str] = dict(enumerate(feature.names))
    return [known.get(value, value) for value in values]


def labels_in(
    tables: Iterable[Dataset], column: str, where: str, label_map: LabelMap = AS_THEY_ARE
) -> tuple[str, ...]:
    """The label set that the data show: the names of a ``ClassLabel``, or the different values.

    Args:
        tables: that have the column, of a kind that labels can be.
        column: of labels.
        where: what the tables are called in a question.
        label_map: other names of some.

    Raises:
        ValueError: if there is none, or asking about what may be no labels. The set is published,
            so that values that look like records are refused.
    """
    found: Counter[str] = Counter()
    for table in tables:
        feature = table.features[column]
        if isinstance(feature, ClassLabel):
            return tuple(dict.fromkeys(_mapped(feature.names, label_map)))
        found.update(_mapped(table[column][:], label_map))
    if not found:
        raise ValueError(f"label: column {column!r} of {where} holds no label")
    if question := _question(found):
        raise ValueError(f"labels: column {column!r} of {where} {question}")
    numbers = sorted(filter(_is_whole, found), key=int)
    return (*numbers, *sorted(found.keys() - set(numbers)))


def ids_of(
    table: Dataset,
    column: str,
    labels: Sequence[str],
    where: str,
    label_map: LabelMap = AS_THEY_ARE,
) -> list[int]:
    """Positions in ``labels`` by row; -1 where there is no label.

    Whole numbers are ids already, unless the labels themselves are numbers; these are compared as
    numbers, since files do not tell 1 from 1.0.

    Raises:
        ValueError: naming a row whose label is not in the set.
    """
    feature = table.features[column]
    has_names = isinstance(feature, ClassLabel) and not set(
        _mapped(feature.names, label_map)
    ).isdisjoint(labels)
    # A ClassLabel without a name in common has other names for the same ids.
    values = values_of(table, column) if has_names else table[column][:]
    places = _places(tuple(labels))
    are_ids = not all(map(_is_number, labels))
    ids = []
    for row, value in enumerate(values):
        text = label_text(value)
        mapped = label_map.get(text, text) if text is not None else None
        if mapped is None:
            ids.append(-1)
            continue
        place = places.get(mapped, places.get(_number(mapped)))
        if place is None and isinstance(value, bool):
            place = places.get(mapped.lower())  # as files write it
        if place is None and are_ids and mapped == text and not isinstance(value, str):
            place = _as_id(text, len(labels))
        if place is None:
            raise ValueError(_unknown(row, mapped, labels, where))
        ids.append(place)
    return ids


def check_names(
    tables: Mapping[str, Dataset],
    column: str,
    labels: Sequence[str],
    label_map: LabelMap = AS_THEY_ARE,
) -> None:
    """See that the ids of every ``ClassLabel`` mean the same.

    If none of its names is in the label set, they are taken for other names of the same ids: that
    they must be in all tables, one for each label.

    Args:
        tables: by what they are called in an error; those without such a column are passed over.
        column: of labels.
        labels: the label set.
        label_map: other names of some.

    Raises:
        ValueError: naming a table whose classes may be other ones.
    """
    named = {
        where: tuple(_mapped(feature.names, label_map))
        for where, table in tables.items()
        if isinstance(feature := table.features.get(column), ClassLabel)
    }
    for where, names in named.items():
        if not set(names).isdisjoint(labels):
            continue
        if len(names) != len(labels) or set(named.values()) != {names}:
            raise ValueError(
                f"label: the classes of {where} are called otherwise than those of the label set, "
                "and may be other ones; name all classes in labels, or say in label_map what each "
                f"name there means; the label set is: {listed(labels)}"
            )


def place_of(
    value: object, labels: Sequence[str], row: int, where: str, label_map: LabelMap = AS_THEY_ARE
) -> int | None:
    """The position of one label among several on a record; None where it is none.

    Raises:
        ValueError: naming the row, if it is not in the set.
    """
    text = label_text(value)
    mapped = label_map.get(text, text) if text is not None else None
    if mapped is None:
        return None
    places = _places(tuple(labels))
    place = places.get(mapped, places.get(_number(mapped)))
    if place is None:
        raise ValueError(_unknown(row, mapped, labels, where))
    return place


def label_text(value: object) -> str | None:
    """What a cell calls its label; None where it holds none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return str(whole(value)).strip() or None


def whole(value: object) -> object:
    """Whole numbers that a reader made floats because some were missing, as they were."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


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


def is_fraction(text: str) -> bool:
    """Whether it is a number that is not whole."""
    return _is_number(text) and not _is_whole(text)


def is_unlabelled(table: Dataset, column: str) -> bool:
    """Whether every label is -1, as hub data sets mark labels that are kept secret."""
    return column in table.column_names and set(table[column][:]) == {-1}


def _question(found: Mapping[str, int]) -> str | None:
    """What should be asked about these values and how often each is there, if anything."""
    records = sum(found.values())
    many = f"it has {len(found)} different values in {records} records"
    questions = (
        (any(map(is_fraction, found)), f"holds numbers with fractions; {NUMBERS}"),
        (
            len(found) > _MOST_LABELS or not are_names(found, records),
            f"does not look like labels: {many}, or long ones. A label set is public, so it is not "
            "taken from there; give labels, or the right column",
        ),
        (any(map(_is_negative, found)), _negative(found)),
        (
            case_twins(found) is not None,
            "has labels that differ in case only; say in label_map which of them mean the same, "
            "such as {Yes: yes}, or name them all in labels",
        ),
        (
            records > _FEW and len(found) > records / 10,
            f"may be no column of labels: {many}, so few of each; name them in labels if they are "
            "classes, or another column",
        ),
        (
            records > _FEW and min(found.values()) == 1,
            "has a value that only one record has, which may be a slip; name the classes in "
            "labels, and in label_map what such a value means, or null for no label",
        ),
    )
    return next((text for asked, text in questions if asked), None)


def _negative(found: Collection[str]) -> str:
    told = f"the label {_NONE}" if _NONE in found else "a negative number"
    return (
        f"has {told}, as data sets often mark records without a label; leave them out by "
        f"label_map, such as {{'{_NONE}': null}}, or name all classes in labels if it is one"
    )


def _mapped(values: Iterable[object], label_map: LabelMap) -> list[str]:
    """What the values are called here, without those that are no label."""
    texts = (text for value in values if (text := label_text(value)) is not None)
    mapped = (label_map.get(text, text) for text in texts)
    return [text for text in mapped if text is not None]


@cache
def _places(labels: tuple[str, ...]) -> Mapping[object, int]:
    """Label, and where it is a number also its value -> its id."""
    places: dict[object, int] = {label: place for place, label in enumerate(labels)}
    if all(map(_is_number, labels)):
        return {_number(label): place for label, place in places.items()} | places
    return places


def _is_number(text: object) -> bool:
    return _number(text) is not None


def _number(text: object) -> float | None:
    try:
        number = float(str(text))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _is_whole(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _is_negative(text: str) -> bool:
    return _is_whole(text) and int(text) < 0


def _as_id(text: str, count: int) -> int | None:
    """The id that a number is, of so many labels."""
    return int(text) if _is_whole(text) and 0 <= int(text) < count else None


def _unknown(row: int, label: str, labels: Sequence[str], where: str) -> str:
    """The label itself is not told: a wrong column may have been named, and its records quoted."""
    place = f"label: row {row} (the first is 0) of {where}"
    if _is_negative(label):
        return f"{place}: it {_negative([label])}"
    if label.casefold() in map(str.casefold, labels):
        return (
            f"{place} has a label that differs from one of the label set in case only; say in "
            f"label_map which one it means; the label set is: {listed(labels)}"
        )
    has_ids = _is_whole(label) and not all(map(_is_number, labels))
    ids = f", or as ids 0 to {len(labels) - 1}" if has_ids else ""
    return (
        f"{place} has a label outside of the label set; add it there, or say in label_map what it "
        f"means, or null for no label; the label set is: {listed(labels)}{ids}"
    )
