"""Which columns play which part, told by their names and by what they hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

Found = tuple[dict[str, str], dict[str, tuple[str, ...]]]
"""Part -> column, and of parts that could not be told -> what may be meant."""

_PAIRS = (
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("text1", "text2"),
    ("question1", "question2"),
    ("text", "textpair"),
    ("question", "sentence"),
)
"""Two texts of a record, by the names of their columns."""


class Look(Protocol):
    """A table that is looked at; columns by name."""

    @property
    def columns(self) -> Sequence[str]:
        """All of them."""
        ...

    def called(self, part: str, among: Iterable[str]) -> Iterator[str]:
        """Those that are called like a part, the most usual name first."""
        ...

    def texts(self) -> list[str]:
        """Of text, the longest on average first."""
        ...

    def chats(self) -> list[str]:
        """Of chats."""
        ...

    def word_lists(self) -> list[str]:
        """Of lists of texts."""
        ...

    def tags(self) -> list[str]:
        """Of lists of tags."""
        ...

    def spans(self) -> list[str]:
        """Of lists of {start, end, label}."""
        ...

    def images(self) -> list[str]:
        """Of images, of their bytes, or of paths that end like those of images."""
        ...

    def may_be_labels(self) -> list[str]:
        """With few different values."""
        ...

    def have_named_classes(self) -> list[str]:
        """Of ids whose names the data know."""
        ...

    def words_for(self, column: str) -> list[str]:
        """Of words, each of which stands for one of a column's numbers."""
        ...

    def numbers(self) -> list[str]:
        """Of numbers with fractions."""
        ...

    def lists(self) -> list[str]:
        """Of lists of words or ids."""
        ...


def labelled(look: Look, part: str, taken: set[str]) -> Found:
    """The columns of texts or images and their labels, one each.

    Where one column has numbers and another the words for them, the words are the labels: a head
    can begin at what they mean.

    Args:
        look: at a table.
        part: ``text`` or ``image``.
        taken: columns that are something else.
    """
    labels = [c for c in look.may_be_labels() if c not in taken]
    label = next(look.called("label", labels), None)
    if label is None:
        classes = [c for c in labels if c in look.have_named_classes()]
        label = (classes or labels)[0] if len(classes or labels) == 1 else None
    if label is not None:
        inputs = {*(look.images() if part == "image" else look.texts())} - taken
        words = [c for c in look.words_for(label) if c not in taken and inputs - {c}]
        label = words[0] if words else label
    return _with_inputs(look, part, label, labels, taken)


def marked(look: Look, may_be: Sequence[str], taken: set[str], part: str = "text") -> Found:
    """The columns of texts or images and of what is learned with them.

    Args:
        look: at a table.
        may_be: columns that the target may be in.
        taken: columns that are something else.
        part: ``text`` or ``image``.
    """
    targets = [column for column in may_be if column not in taken]
    only = targets[0] if len(targets) == 1 else None
    target = next(look.called("label", targets), only)
    return _with_inputs(look, part, target, targets, taken)


def _with_inputs(
    look: Look, part: str, label: str | None, labels: Sequence[str], taken: set[str]
) -> Found:
    """The columns of texts or images, beside a label or where it is still to be told."""
    inputs = [c for c in (look.images() if part == "image" else look.texts()) if c not in taken]
    columns: dict[str, str] = {}
    unknown: dict[str, tuple[str, ...]] = {}
    inputs = [column for column in inputs if column != label]
    two = pair(inputs) if part == "text" else None
    if two:
        columns["text"], columns["text_pair"] = two
    elif inputs:
        columns[part] = next(look.called(part, inputs), inputs[0])
    else:
        unknown[part] = tuple(look.columns)
    if label is None:
        others = [c for c in look.columns if c not in {*columns.values(), *taken}]
        others = [column for column in others if column in labels or column not in look.numbers()]
        unknown["label"] = tuple([c for c in labels if c in others] or others)
    else:
        columns["label"] = label
    return columns, unknown


def plain(name: str) -> str:
    """A column's name without case and signs."""
    return "".join(filter(str.isalnum, name.casefold()))


def pair(columns: Sequence[str]) -> tuple[str, str] | None:
    """Two texts of a record, told by what their columns are called; None if none are."""
    named = {plain(name): name for name in columns}
    return next(((named[a], named[b]) for a, b in _PAIRS if a in named and b in named), None)
