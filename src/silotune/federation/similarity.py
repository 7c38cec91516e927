"""Similarity: vectors of texts that a model makes, and what their cosines say of pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from silotune.objectives import Objective
from silotune.objectives.answers import Embedding, Similarity
from silotune.objectives.embeddings import embedded
from silotune.objectives.text_embedding import scores_of

Texts = str | Sequence[str]
"""One text, or two."""


def compared(
    model: nn.Module, tokenizer: Any, objective: Objective, records: Sequence[Texts]
) -> Iterator[Similarity | Embedding]:
    """A vector of each single text, and the cosine of each pair with the score it stands for.

    Args:
        model: embeds.
        tokenizer: its own.
        objective: by which it was trained.
        records: one or more.
    """
    firsts = _vectors(model, tokenizer, objective, [_text(record, 0) for record in records])
    pairs = [record for record in records if not isinstance(record, str)]
    seconds = iter(_vectors(model, tokenizer, objective, [_text(pair, 1) for pair in pairs]))
    for record, vector in zip(records, firsts, strict=True):
        if isinstance(record, str):
            yield Embedding(tuple(vector.tolist()))
        else:
            cosine = (vector * next(seconds)).sum().double()
            yield Similarity(float(scores_of(cosine, objective.constants)), float(cosine))


def _text(record: Texts, place: int) -> str:
    return record if isinstance(record, str) else record[place]


def _vectors(
    model: nn.Module, tokenizer: Any, objective: Objective, texts: Sequence[str]
) -> Sequence[Tensor]:
    """(h,) each, as training reads these texts."""
    if not texts:
        return []
    encoded = tokenizer(
        list(texts),
        padding=True,
        truncation=True,
        max_length=objective.max_length,
        return_tensors="pt",
    )
    known = ("input_ids", "token_type_ids", "attention_mask")
    device = next(model.parameters()).device
    read = {name: encoded[name].to(device) for name in known if name in encoded}
    return list(embedded(model, read, objective.pooling).cpu())
