"""Kinds: what a column holds, in words, and what helps where it holds something else.

A feature of ``datasets`` is never shown as it is: that of classes lists their names, and that of
mappings their keys, either of which may be what records say.
"""

from __future__ import annotations

from datasets import ClassLabel, Image, LargeList, List, Value

from silotune.objectives.task import Target

_PLAIN = {
    "string": "text",
    "large_string": "text",
    "bool": "true and false",
    "int": "whole numbers",
    "uint": "whole numbers",
    "float": "numbers",
    "decimal": "decimal numbers",
    "binary": "bytes",
    "large_binary": "bytes",
    "timestamp": "times",
    "date": "dates",
    "null": "nothing",
}
"""How the names of plain types begin -> what they are called."""

_FIELDS = {"start", "end", "label", "role", "content", "from", "value", "type", "text"}
"""Keys of mappings that are read here."""

_NUMBERS = "write numbers there, 1.5 and no 1,5 or 1.5 days"
_CURES = {
    "label": "if a record may have several labels, take a task with several; if it has a number, "
    "task: regression",
    "labels": "write lists there, or name two columns of 0 and 1 or more; if every record has one "
    "label, take a task with one",
    "numbers": f"{_NUMBERS}; if it is one of some classes, take a task with labels",
    "score": _NUMBERS,
}


def described(feature: object) -> str:
    """What a column holds."""
    if isinstance(feature, Value):
        names = (word for begins, word in _PLAIN.items() if feature.dtype.startswith(begins))
        return next(names, feature.dtype)
    if isinstance(feature, List | LargeList):
        return f"lists of {described(feature.feature)}"
    if isinstance(feature, dict):
        if not feature.keys() <= _FIELDS:
            return "mappings"
        return f"{{{', '.join(f'{key}: {described(inner)}' for key, inner in feature.items())}}}"
    known = {ClassLabel: "classes", Image: "images"}
    return known.get(type(feature), type(feature).__name__)


def cure(part: str, target: Target, *, several: bool) -> str:
    """What helps where the column of a part holds something else.

    Args:
        part: of a record.
        target: what is learned, if the part is the label.
        several: whether the column is one of several.
    """
    if part != "label":
        return "name a column that does"
    if target == "labels" and several:
        return "write 1 where a record has the label, and 0 where it has not"
    return _CURES[target]
