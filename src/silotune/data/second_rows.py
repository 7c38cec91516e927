"""Second rows: records of two texts of which each is a row of tokens of its own.

What a decoder is to write lies beside what its encoder reads, or two texts beside each other that
one model reads apart. Each row is padded for itself, and has its own mask (``core.masks``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from silotune.core.masks import DECODER
from silotune.objectives import Objective, find
from silotune.objectives.base import max_target_length, source_prefix

from .chunks import Chunk
from .columns import is_visible, slices


@dataclass(frozen=True, kw_only=True)
class SecondRow:
    """The second text of a record, where it is a row of its own.

    Attributes:
        first: part of a record that is read first.
        part: that is the second.
        row: how the names of its tensors begin.
        max_length: tokens of the second; the rest is cut.
        prefix: what every first text begins with.
    """

    first: str
    part: str
    row: str
    max_length: int
    prefix: str = ""


def second_row(objective: Objective) -> SecondRow | None:
    """The second row of an objective's records, if they have one."""
    for part, row in find(objective.task).apart.items():
        return SecondRow(
            first=next(other for other in objective.columns if other not in (part, "label")),
            part=part,
            row=row,
            max_length=max_target_length(objective),
            prefix=source_prefix(objective),
        )
    return None


def side_by_side(
    table: Dataset, tokenizer: Any, max_length: int, second: SecondRow
) -> Iterator[Chunk]:
    """Tokenize both rows of a readable table; a record without one of its texts is left out.

    Args:
        table: has the parts of ``second``.
        tokenizer: a fast one; some write a target in another way than they read a text.
        max_length: tokens of a first text, its prefix included.
        second: says where the second is.
    """
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for first, columns in slices(table):
        firsts, seconds = columns[second.first], columns[second.part]
        texts = [second.prefix + (text or "") for text in firsts]
        others = [text or "" for text in seconds]
        read = tokenizer(texts, truncation=True, max_length=max_length)
        written = second.row == DECODER
        given = {"text_target": others} if written else {"text": others}
        beside = tokenizer(**given, truncation=True, max_length=second.max_length)
        rows = range(len(texts))
        kept = [
            i
            for i in rows
            if is_visible(firsts[i]) and is_visible(seconds[i])
            if not any(special.issuperset(r["input_ids"][i]) for r in (read, beside))
        ]
        names = [name for name in ("input_ids", "token_type_ids") if name in read]
        made = {name: [read[name][i] for i in kept] for name in names}
        rows_of = {"labels": "input_ids"} if written else {second.row + n: n for n in names}
        made |= {name: [beside[own][i] for i in kept] for name, own in rows_of.items()}
        yield Chunk(
            rows=[first + i for i in kept],
            columns=made,
            truncated=_cut(read, kept),
            cut_seconds=_cut(beside, kept),
        )


def _cut(encoded: Any, kept: Sequence[int]) -> int:
    """How many texts were longer than what is read."""
    return sum(bool(encoded.encodings[i].overflowing) for i in kept)
