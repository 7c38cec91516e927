"""Guess: what the columns of somebody's data are for, by what they are called and hold.

Nothing but names of columns and counts leaves this module, except labels, which whoever asks writes
into a configuration and so makes public. What cannot be told is left open, with the columns that
may be meant; a wrong guess about labels or silos would be worse than a question.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np
from datasets import ClassLabel, Dataset, Image, Value

from silotune.objectives import TASKS, find
from silotune.objectives.guessing import plain
from silotune.objectives.task import Target

from .annotations import are_tags, holds_spans, holds_tags, holds_words, named_tags, types_in
from .chats import is_chat
from .columns import is_heading
from .labels import is_fraction, label_text, values_of
from .loading import IMAGES, Source
from .messages import listed
from .partition import by_column
from .targets import flat, is_target

ALONE = next(name for name, task in TASKS.items() if frozenset({"text"}) in task.forms)
"""What texts are for that have nothing beside them."""

_SEVERAL, _NUMBERS = (
    next(name for name, task in TASKS.items() if task.target == target and task.reads == "text")
    for target in ("labels", "numbers")
)
"""What texts are for that have several labels, or numbers, beside them."""

LOOKED_AT = 5000
"""Records by which a column is judged."""

_MOST_LABELS, _LONGEST_LABEL, _FEWEST_EACH = 1000, 100, 4
"""Of a column that may hold labels: how many, how long, and records for each on average."""

_MOST_SILOS = 500

_FEWEST_WORDS = 3
"""Of a text that may be a second one beside another, on average."""

_UNLABELLED = "-1"

_NOT_READ = ("label", "tags", "spans", "image", "target")
"""Parts of which no tokens are made that ``max_length`` would count."""

_CALLED: Mapping[str, tuple[str, ...]] = {
    "text": (
        *("text", "sentence", "review", "content", "utterance", "query", "question", "note"),
        *("body", "message", "comment", "tweet", "document", "abstract", "description", "title"),
    ),
    "label": (
        *("label", "labels", "category", "class", "intent", "target", "sentiment", "topic"),
        *("labeltext", "labelname", "department", "diagnosis", "tag", "rating", "stars", "y"),
    ),
    "score": ("score", "similarity", "similarityscore", "relatedness", "relatednessscore"),
    "silo": (
        *("silo", "site", "client", "clientid", "siloid", "hospital", "clinic", "center", "centre"),
        *("institution", "organisation", "organization", "branch", "bank", "store", "domain"),
        *("node", "party", "region", "source", "speaker"),
    ),
    "person": ("person", "personid", "patient", "patientid", "user", "userid", "customerid"),
    "prompt": ("prompt", "instruction", "question", "query"),
    "input": ("input", "context"),
    "completion": ("completion", "output", "response", "answer", "chosen"),
    "source": ("source", "article", "document", "dialogue", "report", "src", "note"),
    "target": ("target", "summary", "highlights", "abstract", "tgt", "translation", "impression"),
    "words": ("words", "tokens"),
    "tags": ("tags", "nertags", "labels"),
    "spans": ("spans", "entities", "annotations", "labels", "label"),
    "messages": ("messages", "conversations", "conversation", "chat", "dialogue", "turns"),
    "image": ("image", "img", "picture", "photo", "file", "filename", "path", "imagepath"),
}
"""Part -> usual names of its column, without case and signs, the most usual first."""


@dataclass(frozen=True, kw_only=True)
class Guess:
    """What a configuration needs to know of data.

    Attributes:
        task: what records are for.
        columns: part of a record -> column.
        open: parts that could not be told -> the columns that may be meant.
        labels: the label set, or the types of entities, if there is a column of them.
        unlabelled: whether some records have the label -1, as data sets mark those without one.
        divided: whether the data come as silos, in folders or files of their own.
        by: column that names the silos.
        may_name_silos: columns that might, if none is told.
        person: column that names people.
        unused: columns that nothing was guessed of.
        second_texts: those of them that may hold a second text of each record.
        numbers: those of them that hold numbers with fractions.
        tokens: about so many, of all but the longest twentieth of the records.
    """

    task: str
    columns: Mapping[str, str]
    open: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    unlabelled: bool = False
    divided: bool = False
    by: str | None = None
    may_name_silos: tuple[str, ...] = ()
    person: str | None = None
    unused: tuple[str, ...] = ()
    second_texts: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    tokens: int = 0


def guess(source: Source, task: str | None) -> Guess:
    """Look at what was loaded.

    Args:
        source: any.
        task: its name; ``classification`` of texts or of images; None: by the columns.

    Raises:
        ValueError: in words, if there is no header, or the columns may be for several tasks.
    """
    tables = [t.train for t in source.silos.values()] if source.silos else [source.train]
    whole = datasets.concatenate_datasets([table for table in tables if table is not None])
    if not all(map(is_heading, whole.column_names)):
        raise ValueError(
            "clients: the first row does not look like names of columns, and is not shown; give "
            "the data a header of short names, or name the columns in a configuration of your own"
        )
    look = _Look(whole)
    by = None if source.silos else next(look.called("silo", look.names_silos()), None)
    person = next(look.called("person", look.table.column_names), None)
    taken = {name for name in (by, person, "split") if name}
    kind = _task(look, task, taken)
    columns, unknown = find(kind).guess(look, taken)
    labels = _labels(whole, columns, find(kind).target)
    used = {*columns.values(), *taken}
    unused = tuple(name for name in whole.column_names if name not in used)
    others = set(look.names_silos()) - used
    return Guess(
        task=kind,
        columns=columns,
        open=unknown,
        labels=tuple(name for name in labels if name != _UNLABELLED),
        unlabelled=_UNLABELLED in labels,
        divided=bool(source.silos),
        by=by,
        may_name_silos=() if by or source.silos else tuple(sorted(others)),
        person=person,
        unused=unused,
        second_texts=_second_texts(look, kind, columns, unused),
        numbers=tuple(name for name in look.numbers() if name in unused),
        tokens=look.tokens([c for part, c in columns.items() if part not in _NOT_READ]),
    )


def _labels(table: Dataset, columns: Mapping[str, str], target: Target) -> tuple[str, ...]:
    """What a record may be labelled with, or entities in it."""
    if "label" in columns:
        return label_set(table, columns["label"], target)
    marked = columns.get("tags", columns.get("spans"))
    return types_in(table, marked) if marked else ()


def label_set(table: Dataset, column: str, target: Target) -> tuple[str, ...]:
    """The labels of a column: in order of ids, of numbers, or of the alphabet."""
    if target in ("numbers", "score"):
        return ()
    if target == "labels":
        table = flat(table, column)
    feature = table.features[column]
    if isinstance(feature, ClassLabel):
        return tuple(feature.names)
    found = set(filter(None, map(label_text, values_of(table, column))))
    whole = sorted((label for label in found if label.lstrip("-").isdecimal()), key=int)
    return (*whole, *sorted(found - set(whole)))


class _Look:
    """A table, and what its columns look like."""

    def __init__(self, table: Dataset) -> None:
        self.table = table
        self.some = table.select(range(min(len(table), LOOKED_AT)))

    @property
    def columns(self) -> list[str]:
        """All of them."""
        return list(self.table.column_names)

    def called(self, part: str, among: Iterable[str]) -> Iterator[str]:
        """Columns that are called like a part, the most usual name first."""
        named = {plain(name): name for name in among}
        return (named[name] for name in _CALLED[part] if name in named)

    def texts(self) -> list[str]:
        """Columns of text, the longest on average first."""
        lengths = {name: self._mean_length(name) for name in self._of_type("string")}
        return sorted(lengths, key=lambda name: -lengths[name])

    def sentences(self) -> list[str]:
        """Those that are of several words each, as a rule."""
        return [name for name in self.texts() if self._mean_words(name) >= _FEWEST_WORDS]

    def chats(self) -> list[str]:
        """Columns of chats."""
        return [name for name, feature in self.table.features.items() if is_chat(feature)]

    def word_lists(self) -> list[str]:
        """Columns of lists of texts."""
        return [name for name, feature in self.table.features.items() if holds_words(feature)]

    def tags(self) -> list[str]:
        """Columns of lists of names that look like tags of entities."""
        lists = [name for name, f in self.table.features.items() if holds_tags(f)]
        return [name for name in lists if are_tags(named_tags(self.some, name))]

    def spans(self) -> list[str]:
        """Columns of lists of {start, end, label}, if there is one in them."""
        lists = [name for name, f in self.table.features.items() if holds_spans(f)]
        return [name for name in lists if types_in(self.some, name)]

    def images(self) -> list[str]:
        """Columns of images, of their bytes, or of paths that end like those of images."""
        return [name for name in self.table.column_names if self._is_image(name)]

    def may_be_labels(self) -> list[str]:
        """Columns with few different values."""
        return [name for name in self.table.column_names if self._is_label(name)]

    def have_named_classes(self) -> list[str]:
        """Columns of ids whose names the data know."""
        return [name for name, f in self.table.features.items() if isinstance(f, ClassLabel)]

    def words_for(self, column: str) -> list[str]:
        """Columns of words, each of which stands for one of a column's numbers."""
        if column not in self._of_type("int", "uint"):
            return []
        numbers = self.table[column][:]
        words = [name for name in self.may_be_labels() if name in self._of_type("string")]
        pairs = {name: set(zip(numbers, self.table[name][:], strict=True)) for name in words}
        stood = {name: {label_text(word) for _, word in pairs[name]} - {None} for name in words}
        kinds = len(set(numbers))
        return [name for name in words if len(stood[name]) == len(pairs[name]) == kinds]

    def lists(self) -> list[str]:
        """Columns of lists of labels: few different ones, or of a column that is called so."""
        lists = [name for name, f in self.table.features.items() if is_target(f, "labels", False)]
        called = {*self.called("label", lists)}
        return [name for name in lists if self._are_labels(flat(self.table, name), name in called)]

    def marks(self) -> list[str]:
        """Columns of 0 and 1."""
        return [name for name in self.may_be_labels() if {*_filled(self.table[name][:])} <= {0, 1}]

    def numbers(self) -> list[str]:
        """Columns of numbers with fractions, which are no classes."""
        return [
            name
            for name in self._of_type("float")
            if any(map(is_fraction, filter(None, map(label_text, self.some[name][:]))))
        ]

    def names_silos(self) -> list[str]:
        """Columns whose values could be names of silos."""
        return [name for name in self.may_be_labels() if self._is_silo(name)]

    def tokens(self, columns: Sequence[str]) -> int:
        """About so many of a record, of all but the longest twentieth; four letters make one."""
        if not columns or not len(self.some):
            return 0
        cells = [list(map(_letters, self.some[column][:])) for column in columns]
        return int(np.quantile(np.sum(cells, axis=0), 0.95) / 4) + 2

    def _of_type(self, *kinds: str) -> list[str]:
        features = self.table.features.items()
        return [
            name
            for name, f in features
            if isinstance(f, Value) and f.dtype.removeprefix("large_").startswith(kinds)
        ]

    def _mean_length(self, column: str) -> float:
        return float(np.mean([_letters(value) for value in self.some[column][:]] or [0]))

    def _mean_words(self, column: str) -> float:
        values = _filled(self.some[column][:])
        return float(np.mean([len(value.split()) for value in values] or [0]))

    def _is_label(self, column: str) -> bool:
        feature = self.table.features[column]
        if isinstance(feature, ClassLabel):
            return True
        if column not in self._of_type("string", "int", "uint", "float", "bool"):
            return False
        values = _filled(self.table[column][:])
        found = set(values)
        if any(isinstance(value, float) and not value.is_integer() for value in found):
            return False
        few = 2 <= len(found) <= min(_MOST_LABELS, max(2, len(values) // _FEWEST_EACH))
        return few and all(map(_is_short, found))

    def _are_labels(self, cells: Dataset, called: bool) -> bool:
        """Whether a column of all that lists hold may be of labels."""
        column = cells.column_names[0]
        if isinstance(cells.features[column], ClassLabel):
            return True
        values = _filled(cells[column][:])
        found = set(values)
        few = len(found) <= min(_MOST_LABELS, max(2, len(values) // _FEWEST_EACH))
        return (few or called) and all(map(_is_short, found))

    def _is_silo(self, column: str) -> bool:
        values = values_of(self.table, column)
        if len(set(values)) > _MOST_SILOS or any(isinstance(v, float) for v in values):
            return False
        try:
            return len(by_column(values)) > 1
        except ValueError:
            return False

    def _is_image(self, column: str) -> bool:
        feature = self.table.features[column]
        if isinstance(feature, Image) or column in self._of_type("binary"):
            return True
        if isinstance(feature, dict):
            return {"bytes", "path"} <= set(feature)
        values = _filled(self.some[column][:]) if column in self._of_type("string") else []
        return bool(values) and all(str(value).lower().endswith(IMAGES) for value in values)


def _task(look: _Look, task: str | None, taken: set[str]) -> str:
    """The task that was said, or that the columns are for.

    Raises:
        ValueError: where texts alone may be learned as well as a column beside them.
    """
    if task in TASKS:
        return str(task)
    asked = [t for t in TASKS.values() if task is None or t.target == "label"]
    fitting = [t for t in asked if t.fits(look)]
    if fitting:
        return max(fitting, key=lambda t: t.rank).name
    if task:
        return min(asked, key=lambda t: t.rank).name
    near = _near(look, taken)
    if near:
        names = list(dict.fromkeys(name for columns in near.values() for name in columns))
        tasks = "".join(f"--task {name}, or " for name in near)
        what = "numbers to learn" if _NUMBERS in near else "labels"
        raise ValueError(
            f"task: {listed(map(repr, names))} may hold {what}, or the texts alone may be what is "
            f"learned; say {tasks}--task {ALONE}"
        )
    return ALONE


def _near(look: _Look, taken: set[str]) -> dict[str, list[str]]:
    """Tasks that texts may be for as well -> the columns that would be learned with them."""
    labels = [name for name in look.may_be_labels() if name not in taken]
    marks = [name for name in look.marks() if name in labels]
    several = [name for name in look.lists() if name not in taken]
    several += marks if len(marks) > 1 else []
    numbers = [] if labels or several else list(look.called("label", look.numbers()))
    near = {"classification": labels, _SEVERAL: several, _NUMBERS: numbers}
    return {task: columns for task, columns in near.items() if columns}


def _second_texts(
    look: _Look, task: str, columns: Mapping[str, str], unused: Sequence[str]
) -> tuple[str, ...]:
    if "text_pair" not in find(task).allowed or "text_pair" in columns:
        return ()
    return tuple(name for name in look.sentences() if name in unused)


def _filled(values: Sequence[Any]) -> list[Any]:
    return [value for value in values if label_text(value) is not None]


def _is_short(label: object) -> bool:
    return len(str(label)) <= _LONGEST_LABEL


def _letters(cell: object) -> int:
    """Of a text, or of all texts of a chat."""
    if isinstance(cell, str):
        return len(cell)
    if isinstance(cell, Mapping):
        return sum(map(_letters, cell.values()))
    return sum(map(_letters, cell)) if isinstance(cell, list) else 0
