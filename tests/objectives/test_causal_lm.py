import math
from pathlib import Path

import pytest
import torch

from silotune.core import pool
from silotune.models.load import load_model
from silotune.objectives import CausalLM, Objective

LENGTHS = (5, 8, 4, 7, 6)
TASK = CausalLM(text="text")
STORIES = Path(__file__).parents[3] / "shared/models/stories260K/hf"


@pytest.fixture(params=["gpt2", "llama"])
def loaded(folders, request):
    loaded = load_model(str(folders[request.param]), "causal-lm")
    loaded.model.double()
    return loaded


def rows(batch, *indices):
    return {name: tensor[list(indices)] for name, tensor in batch.items()}


def with_prompts(batch, tokens=2):
    """The first tokens of every text are not learned."""
    labels = batch["labels"].clone()
    labels[:, :tokens] = -100
    return batch | {"labels": labels}


def by_hand(model, batch):
    """Per example: a list of -log p(token t | tokens before t), for targets t >= 1."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    out = []
    for row, labels in zip(logits.tolist(), batch["labels"].tolist(), strict=True):
        out.append(
            [
                math.log(sum(math.exp(z) for z in row[t - 1])) - row[t - 1][labels[t]]
                for t in range(1, len(labels))
                if labels[t] != -100
            ]
        )
    return out


def test_is_an_objective():
    task: Objective = TASK
    assert (task.metric, TASK.goal) == ("loss", "min")


@pytest.mark.parametrize("prompts", [0, 2])
def test_losses_are_means_over_the_examples_own_targets(loaded, prompts):
    batch = with_prompts(TASK.synthetic(loaded.inputs, LENGTHS, 0), prompts)
    expected = [sum(tokens) / len(tokens) for tokens in by_hand(loaded.model, batch)]
    assert TASK.losses(loaded.model, batch).tolist() == pytest.approx(expected, abs=1e-10)


def test_a_loss_depends_on_its_own_example_only(loaded):
    batch = TASK.synthetic(loaded.inputs, LENGTHS, 0)
    whole = TASK.losses(loaded.model, batch)
    assert torch.allclose(
        whole[[4, 0]], TASK.losses(loaded.model, rows(batch, 4, 0)), rtol=0, atol=1e-10
    )


def test_padding_changes_no_loss(loaded):
    batch = TASK.synthetic(loaded.inputs, LENGTHS, 0)
    lengths = batch["attention_mask"].sum(1).tolist()
    assert min(lengths) < max(lengths)
    alone = [
        TASK.losses(loaded.model, {k: t[i : i + 1, :length] for k, t in batch.items()})
        for i, length in enumerate(lengths)
    ]
    assert torch.allclose(TASK.losses(loaded.model, batch), torch.cat(alone), rtol=0, atol=1e-10)


def test_example_without_a_target_has_loss_and_gradient_zero(loaded):
    batch = TASK.synthetic(loaded.inputs, LENGTHS[:3], 0)
    batch = batch | {"labels": batch["labels"].clone()}
    batch["labels"][1] = -100
    loaded.model.requires_grad_(True)
    losses = TASK.losses(loaded.model, batch)
    assert losses[1] == 0
    losses[1].backward()
    assert all(p.grad is None or not p.grad.any() for p in loaded.model.parameters())


def test_measure_weighs_tokens_and_pools_exactly(loaded):
    batch = with_prompts(TASK.synthetic(loaded.inputs, LENGTHS, 0))
    tokens = [loss for example in by_hand(loaded.model, batch) for loss in example]
    whole = TASK.measure(loaded.model, batch).meters()["loss"]
    assert whole.count == len(tokens)
    assert whole.value() == pytest.approx(sum(tokens) / len(tokens), abs=1e-10)
    parts = [
        TASK.measure(loaded.model, rows(batch, *part)).meters() for part in ([0, 1], [2, 3, 4])
    ]
    assert pool(parts)["loss"].value() == pytest.approx(whole.value(), abs=1e-10)


def test_synthetic_targets_are_the_text_itself(loaded):
    batch = TASK.synthetic(loaded.inputs, LENGTHS[:4], 3)
    mask = batch["attention_mask"].bool()
    assert torch.equal(batch["labels"][mask], batch["input_ids"][mask])
    assert (batch["labels"][~mask] == -100).all()


@pytest.mark.shared_data
@pytest.mark.skipif(not STORIES.is_dir(), reason="the pretrained story model is not here")
def test_a_pretrained_model_predicts_text():
    loaded = load_model(str(STORIES), "causal-lm")
    text = "Once upon a time, there was a little girl named Lily. She loved to play outside."
    batch = loaded.tokenizer(text, return_tensors="pt")
    loss = TASK.losses(loaded.model, {**batch, "labels": batch["input_ids"]})
    assert loss.item() < 2.5  # a uniform guess over its 512 tokens has 6.2
