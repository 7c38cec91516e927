"""What tasks have in common whose losses are of tokens: cross entropies, and the perplexity.

Shapes: n examples, T tokens, C classes of each.
"""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from silotune.core import Answers, Batch, Derived, Meter
from silotune.core.masks import DECODER, MASK, PAIR

from .base import IGNORED


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """(n, T) cross entropies, 0 where there is no label.

    Args:
        logits: (n, T, C).
        labels: (n, T), -100 where there is none.
    """
    losses = F.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), reduction="none", ignore_index=IGNORED
    )
    return losses.view(labels.shape)


def inputs_of(model: nn.Module, batch: Batch) -> Batch:
    """What a model reads of a batch: a decoder its labels too, shifted as the model does it.

    Of two texts that are read apart, the first.
    """
    read = {n: t for n, t in batch.items() if n != "labels" and not n.startswith(PAIR)}
    if DECODER + MASK in batch:
        shift: Any = model.prepare_decoder_input_ids_from_labels
        read[f"{DECODER}input_ids"] = shift(batch["labels"])
    return read


def own_means(losses: Tensor, labels: Tensor) -> Tensor:
    """(n,) means over the tokens of each record that have a label; 0 where none has.

    A mean over those of a batch would let one record's length change another's gradient.
    """
    return losses.sum(dim=1) / (labels != IGNORED).sum(dim=1).clamp(min=1)


def perplexity(answers: Answers) -> Derived:
    """The exponential of the mean loss of a token."""
    loss = answers.meters().get("loss")
    return Derived() if loss is None else Derived(metrics={"perplexity": _exponential(loss)})


def _exponential(loss: Meter) -> float:
    return math.exp(min(loss.value(), 700.0))
