import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from silotune.core import pool
from silotune.core.inputs import TextInput
from silotune.models.heads import random_head
from silotune.models.load import load_model
from silotune.objectives import Objective, SequenceClassification

TASK = SequenceClassification(text="text", label="label")


def load(folders, name, pooling="model"):
    task = "image-classification" if name == "vit" else "sequence-classification"
    loaded = load_model(str(folders[name]), task, labels=("a", "b", "c"), pooling=pooling)
    for key, tensor in random_head(loaded.heads, 0).items():
        loaded.model.get_submodule(key.site).get_parameter(key.name).copy_(tensor)
    loaded.model.double()
    return loaded


def synthetic(loaded, lengths=(5, 8, 4, 7, 6), seed=0):
    batch = TASK.synthetic(loaded.inputs, lengths, seed)
    return {k: t.double() if t.is_floating_point() else t for k, t in batch.items()}


def rows(batch, *indices):
    return {name: tensor[list(indices)] for name, tensor in batch.items()}


def trimmed(batch, i):
    """One example without its padding."""
    length = int(batch["attention_mask"][i].sum())
    one = rows(batch, i)
    return {k: t if k == "labels" else t[:, :length] for k, t in one.items()}


CASES = [
    ("bert", "model"),
    ("bert", "mean"),
    ("gpt2", "model"),
    ("gpt2", "mean"),
    ("llama", "model"),
    ("vit", "model"),
]


def test_is_an_objective():
    task: Objective = TASK
    assert (task.metric, TASK.goal) == ("accuracy", "max")


@pytest.mark.parametrize(("name", "pooling"), CASES)
def test_losses_are_cross_entropies(folders, name, pooling):
    loaded = load(folders, name, pooling)
    batch = synthetic(loaded)
    inputs = {k: t for k, t in batch.items() if k != "labels"}
    logits = loaded.model(**inputs).logits.tolist()
    by_hand = [
        math.log(sum(math.exp(z) for z in row)) - row[label]
        for row, label in zip(logits, batch["labels"].tolist(), strict=True)
    ]
    assert TASK.losses(loaded.model, batch).tolist() == pytest.approx(by_hand, abs=1e-12)


@pytest.mark.parametrize(("name", "pooling"), CASES)
def test_a_loss_depends_on_its_own_example_only(folders, name, pooling):
    loaded = load(folders, name, pooling)
    batch = synthetic(loaded)
    whole = TASK.losses(loaded.model, batch)
    part = TASK.losses(loaded.model, rows(batch, 3, 1))
    assert torch.allclose(whole[[3, 1]], part, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "pooling"), CASES[:-1])
def test_padding_changes_no_loss(folders, name, pooling):
    loaded = load(folders, name, pooling)
    batch = synthetic(loaded)
    assert not batch["attention_mask"].all()
    alone = torch.cat([TASK.losses(loaded.model, trimmed(batch, i)) for i in range(5)])
    assert torch.allclose(TASK.losses(loaded.model, batch), alone, rtol=0, atol=1e-10)


def test_measure_counts_examples_and_pools_exactly(folders):
    loaded = load(folders, "bert")
    batch = synthetic(loaded)
    whole = TASK.measure(loaded.model, batch).meters()
    parts = [
        TASK.measure(loaded.model, rows(batch, *part)).meters() for part in ([0], [1, 2, 3, 4])
    ]
    pooled = pool(parts)
    assert whole["accuracy"] == pooled["accuracy"]
    assert whole["loss"].count == 5
    assert pooled["loss"].value() == pytest.approx(whole["loss"].value(), abs=1e-12)
    losses = TASK.losses(loaded.model, batch)
    assert whole["loss"].value() == pytest.approx(losses.mean().item(), abs=1e-12)


def test_accuracy_is_one_for_the_models_own_answers(folders):
    loaded = load(folders, "vit")
    batch = synthetic(loaded)
    answers = loaded.model(pixel_values=batch["pixel_values"]).logits.argmax(-1)
    right = TASK.measure(loaded.model, batch | {"labels": answers}).meters()
    wrong = TASK.measure(loaded.model, batch | {"labels": (answers + 1) % 3}).meters()
    assert (right["accuracy"].value(), wrong["accuracy"].value()) == (1.0, 0.0)


def test_half_precision_logits_are_widened_before_the_loss():
    class Half(torch.nn.Module):
        def forward(self, logits):
            return type("Output", (), {"logits": logits})

    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    losses = TASK.losses(Half(), {"logits": logits, "labels": torch.zeros(4, dtype=torch.long)})
    assert losses.dtype == torch.float32
    assert torch.equal(losses, -logits.float().log_softmax(-1)[:, 0])


@given(st.integers(0, 2**32), st.lists(st.integers(1, 20), min_size=1, max_size=9))
def test_synthetic_batches_are_valid_and_reproducible(seed, lengths):
    spec = TextInput(vocabulary=20, special=frozenset({0, 3, 19}), pad=3, num_labels=4)
    batch = TASK.synthetic(spec, lengths, seed)
    ids, mask = batch["input_ids"], batch["attention_mask"].bool()
    assert ids.shape == mask.shape == (len(lengths), max(lengths))
    assert not torch.isin(ids[mask], torch.tensor([0, 3, 19])).any()
    assert (ids[mask] < 20).all()
    assert (ids[~mask] == 3).all()
    assert mask.sum(1).tolist() == lengths
    assert (mask.int().diff(dim=1) <= 0).all()
    assert ((batch["labels"] >= 0) & (batch["labels"] < 4)).all()
    again = TASK.synthetic(spec, lengths, seed)
    assert all(torch.equal(batch[k], again[k]) for k in batch)
