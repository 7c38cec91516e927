"""Chunks: the tokens of some consecutive records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some consecutive records.

    Attributes:
        rows: those that leave something to learn from.
        columns: their tokens, by column.
        truncated: how many of them were cut.
        unlike_alone: how many of their prompts are other tokens by themselves.
        cut_entities: how many entities of theirs were cut.
        cut_seconds: how many of their second texts were cut, where these are rows of their own.
    """

    rows: Sequence[int]
    columns: Mapping[str, Sequence[Sequence[int]]]
    truncated: int
    unlike_alone: int = 0
    cut_entities: int = 0
    cut_seconds: int = 0
