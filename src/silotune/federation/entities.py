"""Entities: what a model that tags tokens finds in texts, by characters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from silotune.data.token_labels import TaggedText, word_places
from silotune.objectives import Objective
from silotune.objectives.base import IGNORED
from silotune.objectives.iob2 import beginning, entities


class Entity(NamedTuple):
    """One entity of a text.

    Attributes:
        label: its type.
        start: its first character.
        end: the first character after it.
        probability: the mean over its tokens of that of the tag that each was given.
    """

    label: str
    start: int
    end: int
    probability: float


def entities_of(
    model: nn.Module,
    tokenizer: Any,
    objective: Objective,
    tags: Sequence[str],
    texts: Sequence[str],
) -> Iterator[list[Entity]]:
    """The entities of each text.

    Args:
        model: gives a tag to each token.
        tokenizer: its own, a fast one.
        objective: by which it was trained: on words, whose first token tells, or on spans.
        tags: all of them, in order of ids.
        texts: one or more.
    """
    encoded = tokenizer(
        list(texts),
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
    by_word = "words" in objective.columns
    for text, places, ids, each in zip(texts, offsets, given.tolist(), sure.tolist(), strict=True):
        pieces = word_places(text) if by_word else []
        order = TaggedText(text, pieces, range(len(pieces)), by_word).labels(places)
        read = [i for i, label in enumerate(order) if label != IGNORED]
        spans = [pieces[order[i]] if by_word else places[i] for i in read]
        yield [
            Entity(
                label=tags[beginning(one.kind)].removeprefix("B-"),
                start=spans[one.first][0],
                end=spans[one.end - 1][1],
                probability=sum(each[i] for i in read[one.first : one.end]) / (one.end - one.first),
            )
            for one in entities([ids[i] for i in read])
        ]
