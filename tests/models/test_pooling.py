import math

import peft
import pytest
import torch

from silotune.models.load import load_model
from silotune.models.target_modules import find_sites

TEXTS = ["a", "a rather longer text", "no"]


def load(folders, name="bert"):
    loaded = load_model(
        str(folders[name]), "sequence-classification", labels=("a", "b"), pooling="mean"
    )
    g = torch.Generator().manual_seed(0)
    torch.nn.init.normal_(loaded.model.classifier.weight, generator=g)
    return loaded


def encode(loaded, texts=TEXTS):
    return loaded.tokenizer(texts, padding=True, return_tensors="pt")


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "llama"])
def test_embedding_is_the_normalised_mean_of_the_unmasked_states(folders, name):
    loaded = load(folders, name)
    model = loaded.model.double()
    batch = encode(loaded)
    hidden = model.encoder(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
    ).last_hidden_state
    embedded = model.embed(batch["input_ids"], batch["attention_mask"])
    for i, mask in enumerate(batch["attention_mask"].tolist()):
        states = [hidden[i, t].tolist() for t in range(len(mask)) if mask[t]]
        mean = [sum(column) / len(states) for column in zip(*states, strict=True)]
        norm = math.sqrt(sum(x * x for x in mean))
        assert embedded[i].tolist() == pytest.approx([x / norm for x in mean], abs=1e-12)


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "llama"])
def test_padding_changes_nothing(folders, name):
    loaded = load(folders, name)
    model = loaded.model.double()
    together = model(**encode(loaded)).logits
    alone = torch.cat([model(**encode(loaded, [text])).logits for text in TEXTS])
    assert torch.allclose(together, alone, rtol=0, atol=1e-12)


def test_text_that_is_all_padding_has_finite_logits_and_gradients(folders):
    loaded = load(folders)
    batch = {k: t.clone() for k, t in encode(loaded).items()}
    batch["attention_mask"][0] = 0
    loaded.model.requires_grad_(True)
    logits = loaded.model(**batch).logits
    assert torch.equal(logits[0], loaded.model.classifier.bias)
    logits.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in loaded.model.parameters())


def test_sites_are_called_as_in_the_transformers_model(folders):
    plain = load_model(str(folders["bert"]), "sequence-classification", labels=("a", "b"))
    theirs = [site.name for site in find_sites(plain.model, ["query", "value"])]
    assert [site.name for site in find_sites(load(folders).model, ["query", "value"])] == theirs


def test_no_pooler_is_left_that_nothing_reads(folders):
    names = [site.name for site in find_sites(load(folders).model, "all-linear")]
    assert names
    assert not any("pooler" in name for name in names)


@pytest.mark.parametrize("task_type", [None, "SEQ_CLS"])
def test_peft_loads_an_adapter_onto_it(folders, tmp_path, task_type):
    config = peft.LoraConfig(
        r=2,
        target_modules=["query", "value"],
        modules_to_save=["classifier"],
        task_type=task_type,
        init_lora_weights=False,
    )
    loaded = load(folders)
    trained = peft.get_peft_model(loaded.model, config)
    bias = "base_model.model.classifier.modules_to_save.default.bias"
    torch.nn.init.ones_(trained.get_parameter(bias))
    batch = encode(loaded)
    expected = trained.eval()(**batch).logits
    trained.save_pretrained(tmp_path, save_embedding_layers=False)

    fresh = load(folders).model
    assert not torch.allclose(fresh(**batch).logits, expected, atol=1e-3)
    again = peft.PeftModel.from_pretrained(fresh, tmp_path).eval()
    assert torch.allclose(again(**batch).logits, expected, atol=1e-6)


def test_labels_give_the_mean_loss(folders):
    loaded = load(folders)
    labels = torch.tensor([0, 1, 1])
    loss, logits = loaded.model(**encode(loaded), labels=labels)
    by_hand = (logits.logsumexp(1) - logits[torch.arange(3), labels]).mean()
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-6)
