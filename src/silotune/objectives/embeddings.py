"""Embeddings: one vector of a text, made of the last hidden states of its tokens.

Texts are padded on the right. Poolings are those of Sentence-BERT (Reimers and Gurevych 2019,
arXiv 1908.10084), and the last token, by which decoders are trained to embed.

Shapes: n texts, T tokens, h features.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from silotune.core import Batch
from silotune.core.masks import MASK

Tokens = Literal["mean", "cls", "last"]
"""Which tokens count: all but padding, the first, or the last."""

POOLING = "sentence_pooling"
"""The entry of a model's configuration that says how it pools."""


def embedded(model: nn.Module, texts: Batch, pooling: str) -> Tensor:
    """(n, h) unit vectors, in float32 at least.

    Args:
        model: gives ``last_hidden_state``.
        texts: what it reads, with an ``attention_mask``.
        pooling: one of ``Tokens``; ``model``: as the model's configuration says.

    Raises:
        ValueError: if it does not say.
    """
    hidden: Tensor = model(**texts).last_hidden_state
    return pooled(hidden, texts[MASK], pooling_of(model, pooling))


def pooled(hidden: Tensor, mask: Tensor, tokens: Tokens) -> Tensor:
    """(n, h) unit vectors of (n, T, h); the zero vector for the mean of a text without tokens.

    Args:
        hidden: of each token.
        mask: (n, T), 0 where there is padding.
        tokens: which count.
    """
    hidden = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
    if tokens == "cls":
        return F.normalize(hidden[:, 0], dim=-1)
    if tokens == "last":
        ends = mask.long().sum(dim=1).clamp(min=1) - 1
        return F.normalize(hidden[torch.arange(len(hidden), device=ends.device), ends], dim=-1)
    weights = mask.to(hidden.dtype).unsqueeze(-1)
    mean = (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)
    return F.normalize(mean, dim=-1)


def pooling_of(model: nn.Module, pooling: str) -> Tokens:
    """Which tokens count in a model.

    Raises:
        ValueError: if that is the model's to say, and it does not.
    """
    told = getattr(model.config, POOLING, None) if pooling == "model" else pooling
    if told not in ("mean", "cls", "last"):
        raise ValueError(
            "pooling: the model does not say how it makes one vector of a text; set it to mean, "
            "cls or last"
        )
    return told  # type: ignore[return-value]
