"""Entities: what a model that tags tokens finds in texts, by characters, or says of words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from silotune.data.token_labels import Place, TaggedText, tagged_text, word_places
from silotune.objectives import Objective
from silotune.objectives.answers import Entity, Tags
from silotune.objectives.base import IGNORED
from silotune.objectives.iob2 import beginning, entities

Tagged = str | Sequence[str]
"""A text, or its words."""


def tagged(
    model: nn.Module,
    tokenizer: Any,
    objective: Objective,
    tags: Sequence[str],
    records: Sequence[Tagged],
) -> Iterator[list[Entity] | Tags]:
    """The entities of each text, or the tag of each word, as scores count them.

    Args:
        model: gives a tag to each token.
        tokenizer: its own, a fast one.
        objective: by which it was trained: on words, whose first token tells, or on spans.
        tags: all of them, in order of ids.
        records: one or more.
    """
    by_word = "words" in objective.columns
    read = [_read(record, by_word) for record in records]
    encoded = tokenizer(
        [one.text for one in read],
        padding=True,
        truncation=True,
        max_length=objective.max_length,
        return_offsets_mapping=True,
        return_tensors="pt",
    )
    offsets = encoded.pop("offset_mapping").tolist()
    device = next(model.parameters()).device
    logits: Tensor = model(**{name: t.to(device) for name, t in encoded.items()}).logits
    sure, given = logits.float().softmax(dim=-1).max(dim=-1)
    told = zip(records, read, offsets, given.tolist(), sure.tolist(), strict=True)
    for record, one, places, ids, each in told:
        order = one.labels(places)
        tokens = [i for i, label in enumerate(order) if label != IGNORED]
        if isinstance(record, str):
            spans = [one.pieces[order[i]] if by_word else places[i] for i in tokens]
            told_of = ([ids[i] for i in tokens], [each[i] for i in tokens], spans, tags)
            yield [*filter(None, (_trimmed(one, record) for one in _entities(*told_of)))]
        else:
            said = {order[i]: (tags[ids[i]], each[i]) for i in tokens}
            words = [said.get(word, (None, None)) for word in range(len(record))]
            yield Tags(tuple(tag for tag, _ in words), tuple(p for _, p in words))


def _read(record: Tagged, by_word: bool) -> TaggedText:
    """A record whose words are tagged by their numbers."""
    if not isinstance(record, str):
        return tagged_text({"words": record, "tags": range(len(record))})
    pieces = word_places(record) if by_word else []
    return TaggedText(record, pieces, range(len(pieces)), by_word)


def _entities(
    ids: Sequence[int], sure: Sequence[float], spans: Sequence[Place], tags: Sequence[str]
) -> Iterator[Entity]:
    for one in entities(ids):
        yield Entity(
            label=tags[beginning(one.kind)].removeprefix("B-"),
            start=spans[one.first][0],
            end=spans[one.end - 1][1],
            probability=sum(sure[one.first : one.end]) / (one.end - one.first),
        )


def _trimmed(entity: Entity, text: str) -> Entity | None:
    """Without spaces at its ends, which are in the tokens of some; None if it is of nothing else.

    The tokens of GPT-2 and its kin begin with the space before a word.
    """
    span = text[entity.start : entity.end]
    start = entity.end - len(span.lstrip())
    end = entity.start + len(span.rstrip())
    return entity._replace(start=start, end=end) if start < end else None
