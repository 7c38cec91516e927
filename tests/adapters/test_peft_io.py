"""What we write loads in PEFT with the same function, and what PEFT writes loads here."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
)

from silotune.adapters import LoRA, PeftLayout, birth, inject, load_peft, save_peft
from silotune.algebra import generator
from silotune.core import Factors
from silotune.models import tiny
from silotune.models.head import random_head
from silotune.models.load import load_model
from silotune.models.pooling import MeanPooledClassifier
from silotune.models.sites import find_sites, peft_targets
from silotune.tasks import CausalLM, Classification

LABELS = ["no", "yes", "maybe"]
CASES = {
    "bert": (tiny.tiny_bert, "sequence-classification", "model", "SEQ_CLS", False),
    "bert-mean": (tiny.tiny_bert, "sequence-classification", "mean", None, False),
    "roberta": (tiny.tiny_roberta, "sequence-classification", "model", "SEQ_CLS", True),
    "gpt2": (tiny.tiny_gpt2, "causal-lm", "model", "CAUSAL_LM", False),
    "gpt2-cls": (tiny.tiny_gpt2, "sequence-classification", "model", "SEQ_CLS", False),
    "llama": (tiny.tiny_llama, "causal-lm", "model", "CAUSAL_LM", True),
    "vit": (tiny.tiny_vit, "image-classification", "model", None, False),
}


def base_model(folder, task, pooling):
    if pooling == "mean":
        return MeanPooledClassifier(AutoModel.from_pretrained(folder), len(LABELS))
    auto = {
        "sequence-classification": AutoModelForSequenceClassification,
        "image-classification": AutoModelForImageClassification,
        "causal-lm": AutoModelForCausalLM,
    }[task]
    labels = {} if task == "causal-lm" else {"num_labels": len(LABELS)}
    return auto.from_pretrained(folder, ignore_mismatched_sizes=True, **labels)


def build(folder, task, pooling, lora, head_scale=1.0):
    labels = () if task == "causal-lm" else tuple(LABELS)
    loaded = load_model(str(folder), task, labels=labels, pooling=pooling)
    names = [site.name for site in loaded.heads]
    sites = find_sites(loaded.model, None, None, names)
    targets = peft_targets(sites, loaded.model, names)
    factors = birth(sites, lora, 0).updated(random_head(loaded.heads, 0))
    factors = Factors(
        {k: t + 0.1 * torch.randn(t.shape, generator=generator(str(k))) for k, t in factors.items()}
    )
    adapted = inject(loaded.model, sites if lora else (), loaded.heads, lora, head_scale)
    adapted.load(factors if lora else factors.only({"head"}))
    prefix = loaded.model.base_model_prefix
    saved = {n if n.startswith(prefix) else n.split(".")[0] for n in names}
    return loaded, adapted, sites, targets, sorted(saved)


def logits(model, loaded, task):
    objective = CausalLM() if task == "causal-lm" else Classification()
    batch = objective.synthetic(loaded.inputs, 4, 0)
    with torch.no_grad():
        return model(**{k: v for k, v in batch.items() if k != "labels"}).logits


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("case", sorted(CASES))
def test_peft_computes_what_we_compute(tmp_path, case, rslora):
    make, task, pooling, task_type, _ = CASES[case]
    folder = make(tmp_path / "base")
    lora = LoRA(rank=3, alpha=5.0, rslora=rslora)
    loaded, adapted, sites, targets, saved = build(folder, task, pooling, lora, head_scale=0.5)
    layout = PeftLayout(
        base_model=str(folder),
        task_type=task_type,
        target_modules=targets,
        modules_to_save=saved,
        head_scale=0.5,
    )
    save_peft(tmp_path / "adapter", adapted.extract(), lora, sites, layout)
    expected = logits(adapted.model, loaded, task)
    base = base_model(folder, task, pooling)
    if task == "sequence-classification":
        base.config.pad_token_id = loaded.model.config.pad_token_id  # GPT-2 has none of its own
    theirs = PeftModel.from_pretrained(base, tmp_path / "adapter")
    torch.testing.assert_close(logits(theirs.eval(), loaded, task), expected, atol=2e-6, rtol=1e-5)
    shapes = {key: tuple(t.shape) for key, t in adapted.tensors.items()}
    assert load_peft(tmp_path / "adapter", shapes, 0.5).digest() == adapted.extract().digest()


@pytest.mark.filterwarnings("ignore")
def test_what_peft_wrote_loads_here(tmp_path):
    folder = tiny.tiny_bert(tmp_path / "base")
    lora = LoRA(rank=3, alpha=5.0)
    config = LoraConfig(r=3, lora_alpha=5, target_modules=["query", "value"], task_type="SEQ_CLS")
    theirs = get_peft_model(base_model(folder, "sequence-classification", "model"), config)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    theirs.save_pretrained(tmp_path / "adapter")
    loaded, adapted, *_ = build(folder, "sequence-classification", "model", lora)
    shapes = {key: tuple(t.shape) for key, t in adapted.tensors.items()}
    adapted.load(load_peft(tmp_path / "adapter", shapes, 1.0))
    expected = logits(theirs.eval(), loaded, "sequence-classification")
    ours = logits(adapted.model, loaded, "sequence-classification")
    torch.testing.assert_close(ours, expected, atol=2e-6, rtol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_head_alone_is_an_adapter_too(tmp_path):
    folder = tiny.tiny_bert(tmp_path / "base")
    loaded, adapted, sites, _, saved = build(folder, "sequence-classification", "model", None)
    layout = PeftLayout(
        base_model=str(folder),
        task_type="SEQ_CLS",
        target_modules=[sites[0].name],
        modules_to_save=saved,
        head_scale=1.0,
    )
    save_peft(tmp_path / "adapter", adapted.extract(), None, sites[:1], layout)
    base = base_model(folder, "sequence-classification", "model")
    theirs = PeftModel.from_pretrained(base, tmp_path / "adapter")
    expected = logits(adapted.model, loaded, "sequence-classification")
    torch.testing.assert_close(
        logits(theirs.eval(), loaded, "sequence-classification"), expected, atol=2e-6, rtol=1e-5
    )
    shapes = {key: tuple(t.shape) for key, t in adapted.tensors.items()}
    assert load_peft(tmp_path / "adapter", shapes, 1.0).digest() == adapted.extract().digest()


def test_an_adapter_of_another_model_is_refused(tmp_path):
    folder = tiny.tiny_bert(tmp_path / "base")
    lora = LoRA(rank=3, alpha=5.0)
    _, adapted, sites, targets, saved = build(folder, "sequence-classification", "model", lora)
    layout = PeftLayout(
        base_model="x",
        task_type=None,
        target_modules=targets,
        modules_to_save=saved,
        head_scale=1.0,
    )
    save_peft(tmp_path / "adapter", adapted.extract(), lora, sites, layout)
    shapes = {key: tuple(t.shape) for key, t in adapted.tensors.items()}
    key = next(iter(shapes))
    with pytest.raises(ValueError, match="shape"):
        load_peft(tmp_path / "adapter", shapes | {key: (1, 1)}, 1.0)
    fewer = {k: s for k, s in shapes.items() if k != key}
    with pytest.raises(ValueError, match="tensors differ"):
        load_peft(tmp_path / "adapter", fewer, 1.0)
    with pytest.raises(ValueError, match="cannot be read"):
        load_peft(tmp_path / "nowhere", shapes, 1.0)
