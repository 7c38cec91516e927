"""A tiny classifier and notes in a loop of one's own."""

import torch
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

from silotune.core import generator

VOCABULARY = 40
TERMS = {"target_epsilon": 6.0, "target_delta": 1e-3}


def bert(seed: int = 0, dropout: float = 0.0, dtype: torch.dtype = torch.float32):
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        num_labels=2,
        initializer_range=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return BertForSequenceClassification(config).to(dtype)


def gpt2(seed: int = 0, dtype: torch.dtype = torch.float32):
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=16,
        n_inner=24,
        n_layer=2,
        n_head=2,
        n_positions=16,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return GPT2LMHeadModel(config).to(dtype)


def notes(n: int = 80) -> list[dict]:
    g = generator("custom loop", n)
    found = []
    for _ in range(n):
        length = int(torch.randint(3, 9, (), generator=g))
        ids = torch.randint(3, VOCABULARY, (length,), generator=g).tolist()
        found.append({"ids": ids, "label": ids[0] % 2})
    return found


def collate(records: list[dict]) -> dict:
    longest = max(len(r["ids"]) for r in records)
    ids = [r["ids"] + [0] * (longest - len(r["ids"])) for r in records]
    mask = [[1] * len(r["ids"]) + [0] * (longest - len(r["ids"])) for r in records]
    return {
        "inputs": {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)},
        "labels": torch.tensor([r["label"] for r in records]),
    }


def losses(model, part) -> torch.Tensor:
    return cross_entropy(model(**part["inputs"]).logits, part["labels"], reduction="none")


def train(private, model, batches: int | None = None, schedule=None) -> None:
    """So many steps, or all that are left."""
    for done, batch in enumerate(private.loader, start=1):
        for part in batch:
            private.backward(losses(model, part))
        private.optimizer.step()
        if schedule:
            schedule.step()
        if done == batches:
            return
