"""Token labels: the tag of each token, by the characters that it was made of.

A word's first token carries its tag and the others have no label; of a text with spans every token
has one. Offsets are those of fast tokenizers, (first character, one after the last); special
tokens have empty ones, and no label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from silotune.objectives.base import IGNORED
from silotune.objectives.iob2 import OUTSIDE, entities

Place = tuple[int, int]
"""First character, one after the last."""


@dataclass(frozen=True)
class TaggedText:
    """A text with pieces that have tags.

    Attributes:
        text: as a tokenizer reads it; words have a space between them.
        pieces: of the text, in order: all words, or the spans of entities.
        tags: of each piece: of a word its own, of a span the one that it begins with.
        by_word: whether pieces are words.
    """

    text: str
    pieces: Sequence[Place]
    tags: Sequence[int]
    by_word: bool

    def labels(self, offsets: Sequence[Place]) -> list[int]:
        """One for each token."""
        return (_of_words if self.by_word else _of_spans)(offsets, self.pieces, self.tags)

    def entities_after(self, end: int) -> int:
        """Entities that do not end before a character: those that a cut there loses, or cuts."""
        if not self.by_word:
            return sum(last > end for _, last in self.pieces)
        return sum(self.pieces[one.end - 1][1] > end for one in entities(self.tags))


def tagged_text(record: Mapping[str, Any]) -> TaggedText:
    """A record of a readable table, with words and tags or text and spans."""
    if "words" in record:
        return TaggedText(*_joined(record["words"]), tags=record["tags"], by_word=True)
    spans = record["spans"]
    return TaggedText(
        text=record["text"] or "",
        pieces=[(span["start"], span["end"]) for span in spans],
        tags=[span["label"] for span in spans],
        by_word=False,
    )


def word_places(text: str) -> list[Place]:
    """The words of a text, as spaces divide it."""
    places, first = [], 0
    for word in text.split():
        first = text.index(word, first)
        places.append((first, first := first + len(word)))
    return places


def _joined(words: Sequence[str | None]) -> tuple[str, list[Place]]:
    places, end = [], -1
    for word in words:
        places.append((end + 1, end := end + 1 + len(word or "")))
    return " ".join(word or "" for word in words), places


def _of_words(offsets: Sequence[Place], words: Sequence[Place], tags: Sequence[int]) -> list[int]:
    labels, word = [], 0
    for first, end in offsets:
        while word < len(words) and words[word][1] <= first:  # no token was left of it
            word += 1
        begins = first < end and word < len(words) and words[word][0] < end
        labels.append(tags[word] if begins else IGNORED)
        word += begins
    return labels


def _of_spans(offsets: Sequence[Place], spans: Sequence[Place], tags: Sequence[int]) -> list[int]:
    labels, span, begun = [], 0, False
    for first, end in offsets:
        if first == end:
            labels.append(IGNORED)
            continue
        while span < len(spans) and spans[span][1] <= first:
            span, begun = span + 1, False
        inside = span < len(spans) and spans[span][0] < end
        labels.append(tags[span] + begun if inside else OUTSIDE)
        begun = begun or inside
    return labels
