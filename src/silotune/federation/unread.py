"""Unread: texts of which a model reads the beginning alone, as they are longer than in training.

Whoever looks for names in a letter takes what is not found for not there, so it is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from silotune.data.columns import AT_ONCE
from silotune.objectives import Objective, find
from silotune.objectives.base import source_prefix


def unread(tokenizer: Any, objective: Objective, asked: Sequence[Any]) -> str | None:
    """A sentence about records that are longer than ``max_length`` tokens, if there are any.

    Args:
        tokenizer: of the model.
        objective: by which it was trained.
        asked: texts, pairs of them, or lists of words, as the model reads them.
    """
    rows = [*longer(tokenizer, objective, asked)]
    if not rows:
        return None
    entities = find(objective.task).target == "entities"
    return (
        f"max_length: {len(rows):,} of {len(asked):,} records are longer than the "
        f"{objective.max_length:,} tokens that are read, row {rows[0]} (the first is 0) before the "
        "others; what comes after is not looked at"
        + (", and no entity is found there: cut long texts up" if entities else "")
    )


def longer(tokenizer: Any, objective: Objective, asked: Sequence[Any]) -> Iterator[int]:
    """Rows of records of which not all is read."""
    for first in range(0, len(asked), AT_ONCE):
        lengths = _lengths(tokenizer, objective, asked[first : first + AT_ONCE])
        yield from (first + i for i, n in enumerate(lengths) if n > objective.max_length)


def _lengths(tokenizer: Any, objective: Objective, asked: Sequence[Any]) -> list[int]:
    """Tokens of each record, of two texts that are read apart those of the longer one."""
    if find(objective.task).embeds:
        firsts, seconds = (
            _counted(tokenizer, [one if isinstance(one, str) else one[place] for one in asked])
            for place in (0, 1)
        )
        return [*map(max, firsts, seconds)]
    if "text_pair" in objective.columns:
        return _counted(tokenizer, *(map(list, zip(*asked, strict=True))))
    prefix = source_prefix(objective)
    texts = (one if isinstance(one, str) else " ".join(word or "" for word in one) for one in asked)
    return _counted(tokenizer, [prefix + text for text in texts])


def _counted(tokenizer: Any, *texts: list[str]) -> list[int]:
    return [len(ids) for ids in tokenizer(*texts, verbose=False)["input_ids"]]
