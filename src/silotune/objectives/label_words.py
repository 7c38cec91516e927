"""Labels as words: a text encoder can begin a head at the names of labels, if they say something.

``card_arrival``, ``card-arrival`` and ``cardArrival`` are read as "card arrival". Numbers, letters
and ``LABEL_0``, ``LABEL_1`` say nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

NEEDS_WORDS = (
    "head_init: label-prototypes begins the head at what labels are called, and these say nothing "
    "that tells them apart; write a mapping of label: description, or set head_init to random"
)
"""What is wrong with labels that are numbers, or not declared."""

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NO_WORD = re.compile(r"[\W_]+")


def descriptions(labels: Sequence[str] | Mapping[str, str]) -> tuple[str, ...]:
    """One text for each label, in order of ids: its description, or the words of its name."""
    if isinstance(labels, Mapping):
        return tuple(labels.values())
    return tuple(_words(label) for label in labels)


def say_something(labels: Sequence[str] | Mapping[str, str] | None) -> bool:
    """Whether an encoder can tell the labels apart by what they mean."""
    if labels is None:
        return False
    if isinstance(labels, Mapping):
        return True
    letters = ["".join(filter(str.isalpha, label)) for label in labels]
    told = all(len(word) > 1 or not word.isascii() for word in letters)
    return told and len({word.casefold() for word in letters}) == len(letters)


def _words(label: str) -> str:
    return " ".join(_NO_WORD.sub(" ", _HUMP.sub(" ", label)).split()) or label
