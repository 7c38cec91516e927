"""IOB2: entities as one tag a token: ``O`` outside, ``B-X`` where an X begins, ``I-X`` inside it.

Entities are read back strictly (Tjong Kim Sang and Veenstra, arXiv cs/9907006; seqeval's
``mode="strict", scheme=IOB2``): one is a ``B-X`` and all ``I-X`` that follow it without a gap. An
``I-X`` after anything else is no entity.

Ids of tags: 0 is ``O``; of the k-th type of entity 1 + 2 k begins and 2 + 2 k goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

OUTSIDE = 0


class Entity(NamedTuple):
    """One entity.

    Attributes:
        kind: which type, from 0.
        first: its first token, or character.
        end: one after its last.
    """

    kind: int
    first: int
    end: int


def tags_of(types: Sequence[str]) -> tuple[str, ...]:
    """The tags of types of entities, in order of ids."""
    return ("O", *(f"{place}-{kind}" for kind in types for place in "BI"))


def beginning(kind: int) -> int:
    """The id of the tag with which an entity of this type begins; the next one goes on."""
    return 1 + 2 * kind


def kind_of(tag: int) -> int | None:
    """The type whose entity begins with a tag, by its id; None if none does."""
    return (tag - 1) // 2 if tag % 2 else None


def entities(tags: Sequence[int]) -> Iterator[Entity]:
    """The entities of a sequence, in their order.

    Args:
        tags: ids of tags, one for each token.
    """
    for first, tag in enumerate(tags):
        kind = kind_of(tag)
        if kind is None:
            continue
        end = first + 1
        while end < len(tags) and tags[end] == tag + 1:
            end += 1
        yield Entity(kind, first, end)
