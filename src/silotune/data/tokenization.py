"""Texts as a model reads them: tokens of all records end to end, padded only inside a batch.

Shapes: N records, n examples of a batch, T tokens of the longest among them, S tokens in all.
Where a record has more than one row of tokens, each row has a T of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray

from silotune.core.dataset import Batch
from silotune.core.masks import MASK, PAIR, mask_of
from silotune.objectives.base import IGNORED

from .assistant_turns import PublicWordsError, Template
from .chat_templates import Passage, passage
from .chunks import Chunk
from .columns import slices
from .second_rows import SecondRow, side_by_side
from .targets import target_array
from .token_labels import tagged_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, eq=False)
class Ragged:
    """One column of all records end to end, and what fills it up in a batch."""

    flat: NDArray[np.int32]  # (S,)
    lengths: NDArray[np.int64]  # (N,)
    padding: int

    @classmethod
    def of(cls, parts: Sequence[NDArray[np.int32]], lengths: Sequence[int], padding: int) -> Ragged:
        """Parts end to end."""
        return cls(np.concatenate(parts), np.asarray(lengths, dtype=np.int64), padding)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where each record begins, (N,)."""
        return np.cumsum(self.lengths, dtype=np.int64) - self.lengths

    def filled(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(n, T), True where there is a token."""
        lengths = self.lengths[rows]
        filled: NDArray[np.bool_] = np.arange(lengths.max()) < lengths[:, None]
        return filled

    def padded(self, rows: NDArray[np.int64], filled: NDArray[np.bool_]) -> NDArray[np.int64]:
        """(n, T)."""
        places = np.repeat(self.starts[rows], self.lengths[rows]) + np.nonzero(filled)[1]
        padded = np.full(filled.shape, self.padding, dtype=np.int64)
        padded[filled] = self.flat[places]
        return padded


@dataclass(frozen=True, eq=False)
class TextExamples:
    """Tokenized records.

    Padding is on the right: on the left it would shift absolute positions.

    A record that leaves nothing to learn from, such as one of special tokens only, is left out.

    Attributes:
        rows: of the table, which records these are, N of them.
        truncated: how many of them were longer than what is read.
        unlike_alone: how many prompts are other tokens by themselves, as at inference, than in
            front of their completion.
        cut_entities: how many entities their cuts took, or a part of.
        cut_seconds: how many second texts were longer than what is read, where these are rows of
            their own.
        lengths: tokens of each record, N of them; of all its rows.
        tokens: ``input_ids``; ``token_type_ids`` if the tokenizer gives them; ``labels`` if tokens
            have their own. Columns of one row of positions have equal lengths.
        targets: label ids, or marks or numbers; None where tokens have labels.
        masks: of these rows.
    """

    rows: NDArray[np.int64]  # (N,)
    truncated: int
    unlike_alone: int
    cut_entities: int
    cut_seconds: int
    lengths: Sequence[int]
    tokens: Mapping[str, Ragged]
    targets: NDArray[Any] | None  # (N,) or (N, C)
    masks: Sequence[str] = (MASK,)

    @property
    def padding(self) -> Mapping[str, int]:
        """Of every column of tokens."""
        return {name: column.padding for name, column in self.tokens.items()}

    def batch(self, indices: Sequence[int]) -> Batch:
        """``input_ids``, ``attention_mask`` (n, T) and ``labels``, all int64.

        The labels are (n,) or (n, T); marks and numbers are (n, C) float32. Further rows of tokens
        have masks of their own (``core.masks``).
        """
        rows, out = np.asarray(indices, dtype=np.int64), dict[str, torch.Tensor]()
        for name, column in self.tokens.items():
            mask = mask_of(name, self.masks)
            filled = out[mask].numpy().astype(bool) if mask in out else column.filled(rows)
            out.setdefault(mask, torch.from_numpy(filled.astype(np.int64)))
            out[name] = torch.from_numpy(column.padded(rows, filled))
        if self.targets is not None:
            out["labels"] = torch.from_numpy(self.targets[rows])
        return out


def text_examples(
    table: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    where: str,
    second: SecondRow | None = None,
) -> TextExamples:
    """Tokenize a readable table, once.

    With a second row, a ``label``, or ``tags`` or ``spans`` texts are cut at their end. Otherwise
    it is for a language model: a record that is too long first loses the beginning of what carries
    no loss (down to half of ``max_length``), then its end, so that something to learn is left.

    Args:
        table: one record or more.
        tokenizer: a fast one, with a padding token.
        max_length: the most tokens of a record, special ones included.
        where: what the table is called in an error.
        second: of two texts, the one that is a row of its own.

    Raises:
        ValueError: if the tokenizer does not serve, or naming a chat that its template refuses.
    """
    _check_tokenizer(tokenizer, max_length)
    masks = (MASK,) if second is None else (MASK, second.row + MASK)
    chunks = _chunks(table, tokenizer, max_length, where, second)
    return _joined(chunks, tokenizer, target_array(table), masks)


def whole_lengths(
    table: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    where: str,
    second: SecondRow | None = None,
) -> list[int]:
    """Tokens of the records of a readable table that leave something to learn from, uncut.

    Of a source with a target, those of the source; of two texts that are read apart, those of the
    longer.

    Args:
        table: readable.
        tokenizer: a fast one.
        where: what the table is called in an error.
        second: of two texts, the one that is a row of its own.

    Raises:
        ValueError: naming a chat that its template refuses.
    """
    uncut = None if second is None else replace(second, max_length=_UNCUT)
    rows = ("input_ids", f"{PAIR}input_ids")
    found = (chunk.columns for chunk in _chunks(table, tokenizer, _UNCUT, where, uncut))
    texts = (zip(*(own[r] for r in rows if r in own), strict=True) for own in found)
    return [max(map(len, record)) for some in texts for record in some]


_UNCUT = 1 << 30
"""More tokens than any record has."""


def _chunks(
    table: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    where: str,
    second: SecondRow | None,
) -> Iterator[Chunk]:
    if second is not None:
        return side_by_side(table, tokenizer, max_length, second)
    if "label" in table.column_names:
        return _classified(table, tokenizer, max_length)
    if {"tags", "spans"} & set(table.column_names):
        return _tagged(table, tokenizer, max_length)
    return _modelled(table, tokenizer, max_length, where)


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    if tokenizer.pad_token_id is None:
        raise ValueError("model: the tokenizer has no padding token")
    if not tokenizer.is_fast:
        raise ValueError("model: the tokenizer is a slow one; a fast one is needed")
    if max_length < 2:
        raise ValueError(f"max_length: {max_length} must be at least 2")


def _classified(
    table: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> Iterator[Chunk]:
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    parts = [part for part in ("text", "text_pair") if part in table.column_names]
    for first, columns in slices(table):
        texts = ([text or "" for text in columns[part]] for part in parts)
        encoded = tokenizer(*texts, truncation=True, max_length=max_length)
        kept = [i for i, ids in enumerate(encoded["input_ids"]) if not special.issuperset(ids)]
        names = [name for name in ("input_ids", "token_type_ids") if name in encoded]
        yield Chunk(
            rows=[first + i for i in kept],
            columns={name: [encoded[name][i] for i in kept] for name in names},
            truncated=sum(bool(encoded.encodings[i].overflowing) for i in kept),
        )


def _tagged(table: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Iterator[Chunk]:
    for first, columns in slices(table):
        cells = zip(*columns.values(), strict=True)
        records = [tagged_text(dict(zip(columns, own, strict=True))) for own in cells]
        encoded = tokenizer(
            [record.text for record in records],
            truncation=True,
            max_length=max_length,
            return_offsets_mapping=True,
        )
        offsets = encoded["offset_mapping"]
        labels = [one.labels(places) for one, places in zip(records, offsets, strict=True)]
        kept = [i for i, own in enumerate(labels) if set(own) - {IGNORED}]
        cut = [i for i in kept if encoded.encodings[i].overflowing]
        names = [name for name in ("input_ids", "token_type_ids") if name in encoded]
        yield Chunk(
            rows=[first + i for i in kept],
            columns={
                **{name: [encoded[name][i] for i in kept] for name in names},
                "labels": [labels[i] for i in kept],
            },
            truncated=len(cut),
            cut_entities=sum(records[i].entities_after(max(offsets[i])[1]) for i in cut),
        )


def _modelled(
    table: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, where: str
) -> Iterator[Chunk]:
    template = template_of(tokenizer) if "messages" in table.column_names else None
    for first, columns in slices(table):
        passages = _passages(columns, template, first, where)
        encoded = tokenizer(
            [p.text for p in passages],
            add_special_tokens=template is None,
            return_offsets_mapping=True,
            verbose=False,
        )
        read = zip(passages, encoded["input_ids"], encoded["offset_mapping"], strict=True)
        whole = [_tokens(p, tokens, offsets, tokenizer) for p, tokens, offsets in read]
        cut = [_cut(ids, learned, tokenizer, max_length) for ids, learned in whole]
        kept = [i for i, (_, learned) in enumerate(cut) if learned[1:].any()]
        # nothing predicts the first token
        yield Chunk(
            rows=[first + i for i in kept],
            columns={
                "input_ids": [cut[i][0].tolist() for i in kept],
                "labels": [np.where(cut[i][1], cut[i][0], IGNORED).tolist() for i in kept],
            },
            truncated=sum(len(whole[i][0]) > max_length for i in kept),
            unlike_alone=_unlike_alone(columns, encoded["input_ids"], kept, tokenizer),
        )


def _unlike_alone(
    columns: Mapping[str, Sequence[Any]],
    joined: Sequence[Sequence[int]],
    rows: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
) -> int:
    """How many prompts do not begin their record with the tokens that they are by themselves."""
    if "prompt" not in columns or not rows:
        return 0
    prompts = [columns["prompt"][row] or "" for row in rows]
    alone = tokenizer(prompts, add_special_tokens=False, verbose=False)["input_ids"]
    own = zip(alone, (joined[row] for row in rows), strict=True)
    return sum(
        whole[(lead := int(whole[:1] == [tokenizer.bos_token_id])) : lead + len(ids)] != ids
        for ids, whole in own
    )


def _passages(
    columns: Mapping[str, Sequence[Any]], template: Template | None, first: int, where: str
) -> list[Passage]:
    passages = []
    for row, cells in enumerate(zip(*columns.values(), strict=True), first):
        try:
            passages.append(passage(dict(zip(columns, cells, strict=True)), template))
        except ValueError as error:
            raise ValueError(f"columns: {_place(row, where)}: {error}") from None
    return passages


def _tokens(
    p: Passage,
    tokens: Sequence[int],
    offsets: Sequence[tuple[int, int]],
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The tokens of a passage and which of them carry loss, end-of-text included."""
    ids = np.asarray(tokens, dtype=np.int64)
    spans = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)
    learned = p.learned(spans[:, 0], spans[:, 1])
    end = tokenizer.eos_token_id
    if not p.ends or end is None:
        return ids, learned
    if len(ids) and ids[-1] == end:
        ids, learned = ids[:-1], learned[:-1]
    return np.append(ids, end), np.append(learned, True)


def _cut(
    ids: NDArray[np.int64],
    learned: NDArray[np.bool_],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """At most ``max_length`` tokens; a token that marks the beginning of text stays."""
    extra = len(ids) - max_length
    if extra <= 0:
        return ids, learned
    lead = int(ids[0] == tokenizer.bos_token_id)
    drop = min(extra, max(0, int(learned.argmax()) - max_length // 2))
    kept = np.delete(np.arange(len(ids)), slice(lead, lead + drop))[:max_length]
    return ids[kept], learned[kept]


def template_of(tokenizer: PreTrainedTokenizerBase) -> Template | None:
    """A tokenizer's chat template, if it has one."""
    if tokenizer.chat_template is None:
        return None

    def render(turns: Sequence[Mapping[str, Any]], asks: bool) -> str:
        try:
            text: str = tokenizer.apply_chat_template(
                list(turns), tokenize=False, add_generation_prompt=asks
            )
        except Exception as error:  # any that its template raises
            if str(error) in str(tokenizer.chat_template):
                raise PublicWordsError(str(error)) from None
            raise
        return text

    return render


def _place(row: int, where: str) -> str:
    return f"row {row} (the first is 0) of {where}"


def _joined(
    chunks: Iterable[Chunk],
    tokenizer: PreTrainedTokenizerBase,
    targets: NDArray[Any] | None,
    masks: Sequence[str],
) -> TextExamples:
    """Chunks of token columns end to end."""
    lengths: dict[str, list[int]] = {}
    flats: dict[str, list[NDArray[np.int32]]] = {}
    rows, truncated, unlike_alone, cut_entities, cut_seconds = list[int](), 0, 0, 0, 0
    for chunk in chunks:
        rows += chunk.rows
        truncated, unlike_alone = truncated + chunk.truncated, unlike_alone + chunk.unlike_alone
        cut_entities += chunk.cut_entities
        cut_seconds += chunk.cut_seconds
        for name, columns in chunk.columns.items():
            flat: NDArray[np.int32] = np.fromiter(chain.from_iterable(columns), dtype=np.int32)
            flats.setdefault(name, []).append(flat)
            lengths.setdefault(name, []).extend(map(len, columns))
    own = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
    padding = {**own, **{PAIR + name: fill for name, fill in own.items()}, "labels": IGNORED}
    kept = np.array(rows, dtype=np.int64)
    tokens = {n: Ragged.of(flat, lengths[n], padding[n]) for n, flat in flats.items()}
    firsts = {mask_of(name, masks): column for name, column in reversed(tokens.items())}
    return TextExamples(
        rows=kept,
        truncated=truncated,
        unlike_alone=unlike_alone,
        cut_entities=cut_entities,
        cut_seconds=cut_seconds,
        lengths=tuple(np.sum([column.lengths for column in firsts.values()], axis=0).tolist()),
        tokens=tokens,
        targets=None if targets is None else targets[kept],
        masks=masks,
    )
