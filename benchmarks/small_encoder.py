"""A sentence encoder of 2 layers and 96 features that has learned from MiniLM, to measure with.

Its word embeddings are MiniLM's along their principal directions, and it was taught to give the
principal components of MiniLM's embeddings of some public texts: enough of a pre-trained encoder
for label prototypes to mean something, and a hundredth of its arithmetic.

Shapes: V words, N texts, h = ``WIDTH`` features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

WIDTH, LAYERS, HEADS = 96, 2, 4
EPOCHS, BATCH, RATE = 12, 64, 2e-3
LONGEST = 32


def small_encoder(teacher: Path, texts: Sequence[str], folder: Path) -> None:
    """Teach one, and save it with its tokenizer.

    Args:
        teacher: MiniLM's folder.
        texts: public ones.
        folder: to write.
    """
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    big = AutoModel.from_pretrained(teacher).eval()
    torch.manual_seed(0)
    tokens = [tokenizer(t, truncation=True, max_length=LONGEST)["input_ids"] for t in texts]
    tokens.sort(key=len)
    batches = [_padded(tokens[i : i + BATCH]) for i in range(0, len(tokens), BATCH)]
    with torch.no_grad():
        wanted = torch.cat([_embedded(big, batch) for batch in batches])  # (N, 384)
        wanted = F.normalize(_principal(wanted, wanted), dim=-1).split(BATCH)
        words = big.embeddings.word_embeddings.weight
        small = _untaught(big.config, _principal(words, words))
    _teach(small, batches, wanted)
    small.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _untaught(like: Any, words: Tensor) -> BertModel:
    """``words``: (V, h)."""
    config = BertConfig(
        vocab_size=like.vocab_size,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        max_position_embeddings=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = BertModel(config, add_pooling_layer=False)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.copy_(words)
    return model


def _teach(model: BertModel, batches: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    course = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, EPOCHS * len(batches))
    for epoch in range(EPOCHS):
        order = torch.randperm(len(batches)).tolist()
        total = 0.0
        for i in order:
            given = F.normalize(_mean(model, batches[i]), dim=-1)
            loss = (1.0 - (given * wanted[i]).sum(-1)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            course.step()
            total += loss.item()
        print(f"lesson {epoch + 1}: cosine {1 - total / len(order):.3f}", flush=True)


def _principal(values: Tensor, of: Tensor) -> Tensor:
    """(N, h): along the leading directions of ``of``, about the origin."""
    _, vectors = torch.linalg.eigh(of.T.double() @ of.double())
    return values @ vectors[:, -WIDTH:].flip(1).to(values.dtype)


def _padded(tokens: Sequence[list[int]]) -> Tensor:
    rows = [torch.tensor(row) for row in tokens]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0)


def _mean(model: Any, batch: Tensor) -> Tensor:
    mask = (batch != 0).long()
    hidden = model(input_ids=batch, attention_mask=mask).last_hidden_state
    return (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)


def _embedded(model: Any, batch: Tensor) -> Tensor:
    return F.normalize(_mean(model, batch), dim=-1)
