"""PEFT's own parameters, with our gradients by record."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig

from custom_loop_toys import bert, collate, gpt2, losses, notes, train
from silotune.core import Role
from silotune.core.packed_linear import PackedLinear
from silotune.custom_loop import PrivacyEngine, adopt

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

QV = ["query", "value"]


def peft(model=None, **fields):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = {"r": 4, "lora_alpha": 16, "target_modules": QV, "task_type": "SEQ_CLS"}
        found = get_peft_model(model or bert(), LoraConfig(**(config | fields)))
        for name, p in found.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(p, std=0.3)
    return found


def by_autograd(model, batch, loss):
    """Gradients of each record alone, by PEFT's own forward pass."""
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    found = []
    for i in range(len(batch["labels"])):
        part = {
            "inputs": {k: t[i : i + 1] for k, t in batch["inputs"].items()},
            "labels": batch["labels"][i : i + 1],
        }
        found.append(torch.autograd.grad(loss(model, part).sum(), list(trained.values())))
    return dict(zip(trained, map(torch.stack, zip(*found, strict=True)), strict=True))


CONFIGS = [
    {},
    {"target_modules": "all-linear"},
    {"use_rslora": True},
    {"lora_alpha": 3},
    {"rank_pattern": {"query": 2}, "alpha_pattern": {"value": 5}},
]


@pytest.mark.parametrize("fields", CONFIGS)
def test_gradients_by_record_are_those_of_autograd(fields):
    model = peft(bert(dtype=torch.float64), **fields).double()
    batch = collate(notes(5))
    reference = by_autograd(model, batch, losses)
    adapted = adopt(model)
    names = {id(p): n for n, p in model.named_parameters()}
    assert {names[id(p)] for p in adapted.tensors.values()} == reference.keys()
    assert any(key.role is Role.HEAD for key in adapted.tensors)
    with adapted.sink.collect(5) as rows:
        losses(adapted, batch).sum().backward()
        found = {names[id(adapted.tensors[key])]: row for key, row in rows.items()}
    assert all(p.grad is None for p in model.parameters())
    for name, rows in reference.items():
        torch.testing.assert_close(found[name], rows, rtol=1e-9, atol=1e-11)


def test_gradients_of_conv1d_maps_too():
    def loss(model, part):
        return model(**part["inputs"]).logits.square().mean(dim=(1, 2))

    model = peft(
        gpt2(dtype=torch.float64),
        target_modules=["c_attn", "c_fc"],
        task_type="CAUSAL_LM",
        fan_in_fan_out=True,
    ).double()
    batch = collate(notes(4))
    reference = by_autograd(model, batch, loss)
    adapted = adopt(model)
    names = {id(p): n for n, p in model.named_parameters()}
    with adapted.sink.collect(4) as rows:
        loss(adapted, batch).sum().backward()
        for key, row in rows.items():
            torch.testing.assert_close(row, reference[names[id(adapted.tensors[key])]])


KINDS = {
    "8bit": {"load_in_8bit": True},
    "4bit": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
}


@pytest.mark.parametrize("bits", KINDS)
def test_a_quantised_base_has_the_gradients_of_its_dequantised_twin(bits, tmp_path):
    """Row by row; no record of a batch rounds another; PEFT loads what was saved."""
    pytest.importorskip("bitsandbytes")
    bert().save_pretrained(tmp_path / "base")
    method = BitsAndBytesConfig(**KINDS[bits], llm_int8_skip_modules=["classifier"])
    auto = AutoModelForSequenceClassification

    def quantised():
        how = {"quantization_config": method, "device_map": {"": "cpu"}}
        return auto.from_pretrained(tmp_path / "base", **how)

    model = peft(quantised()).eval()
    adapted = adopt(model)
    bases = {n: m for n, m in model.named_modules() if isinstance(m, PackedLinear)}
    assert any(name.endswith("query.base_layer") for name in bases)
    plain = bert()
    with torch.no_grad():
        for name, base in bases.items():
            path = name.removeprefix("base_model.model.").removesuffix(".base_layer")
            plain.get_submodule(path).weight.copy_(base.weight)
    twin = peft(plain).eval()
    twin.load_state_dict(
        {n: t for n, t in model.state_dict().items() if "codes" not in n and "scale" not in n},
        strict=False,
    )
    batch = collate(notes(5))
    reference = by_autograd(twin, batch, losses)
    names = {id(p): n for n, p in model.named_parameters()}
    with adapted.sink.collect(5) as rows:
        losses(adapted, batch).sum().backward()
        found = {names[id(adapted.tensors[key])]: row for key, row in rows.items()}
    assert found.keys() == reference.keys()
    for name, expected in reference.items():
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-6)
    alone = model(**{name: t[:1] for name, t in batch["inputs"].items()}).logits
    logits = model(**batch["inputs"]).logits
    torch.testing.assert_close(logits[:1], alone)
    adapted.save_pretrained(tmp_path / "adapter")
    again = adopt(PeftModel.from_pretrained(quantised(), tmp_path / "adapter", is_trainable=True))
    torch.testing.assert_close(again.model.eval()(**batch["inputs"]).logits, logits)


def test_the_model_computes_the_same_and_its_adapter_can_be_switched_off():
    batch = collate(notes(4))["inputs"]
    model = peft()
    before = model(**batch).logits
    adapted = adopt(model)
    torch.testing.assert_close(adapted(**batch).logits, before, rtol=0, atol=0)
    with adapted.sink.collect(4):
        torch.testing.assert_close(adapted(**batch).logits, before)
    with model.disable_adapter():
        assert not torch.equal(model(**batch).logits, before)
        with adapted.sink.collect(4), pytest.raises(ValueError, match="switched off or merged"):
            model(**batch)


def test_what_was_trained_is_what_peft_saves(tmp_path):
    model = peft()
    adapted = adopt(model)
    optimizer = torch.optim.AdamW(adapted.trainable_parameters(), lr=0.05)
    batch = collate(notes(4))["inputs"]
    before = model(**batch).logits
    private = PrivacyEngine(noise_multiplier=1.0, target_delta=1e-3).make_private(
        model=adapted,
        optimizer=optimizer,
        dataset=notes(),
        num_examples=8,
        collate_fn=collate,
        batch_size=8,
        steps=2,
    )
    train(private, adapted)
    after = model(**batch).logits
    assert not torch.allclose(before, after)
    adapted.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(bert(), tmp_path)
    torch.testing.assert_close(loaded(**batch).logits, after)


def test_what_is_frozen_stays_out():
    model = peft()
    for name, p in model.named_parameters():
        if "lora_A" in name:
            p.requires_grad_(False)
    assert {key.role for key in adopt(model).tensors} == {Role.B, Role.HEAD}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"use_dora": True}, r"query: DoRA .*use_dora=False"),
        ({"target_modules": ["word_embeddings"]}, r"word_embeddings: pairs beside an embedding"),
        ({"lora_dropout": 0.1}, r"query: lora_dropout = 0\.1 draws .*lora_dropout=0\.0"),
        ({"bias": "all"}, r"bias.*bias='none'"),
        ({"lora_bias": True}, r"query: its bias is trained .* lora_bias=False"),
        (
            {"modules_to_save": ["classifier", "LayerNorm"]},
            r"LayerNorm.*leave it out",
        ),
        ({"modules_to_save": ["classifier", "word_embeddings"]}, r"Embedding\).*modules_to_save"),
    ],
)
def test_what_is_trained_without_a_gradient_by_record_is_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        adopt(peft(**fields))


def test_other_refusals_name_the_cure():
    with pytest.raises(ValueError, match=r"dropout: drops numbers .* set p = 0"):
        adopt(peft(bert(dropout=0.1)))
    with pytest.raises(ValueError, match=r"for a plain model use adapt"):
        adopt(bert())
    model = peft()
    model.base_model.model.bert.embeddings.LayerNorm.weight.requires_grad_(True)
    with pytest.raises(ValueError, match=r"LayerNorm\): is trained, .* requires_grad_\(False\)"):
        adopt(model)
    with pytest.raises(ValueError, match="nothing in this model requires"):
        adopt(peft().requires_grad_(False))
    half = peft().bfloat16()
    with pytest.raises(ValueError, match=r"trained in bfloat16, .* \.float\(\)"):
        adopt(half)


def test_a_convolution_is_refused():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv1d(3, 3, 1)

        def forward(self, x):
            return self.conv(x)

    model = get_peft_model(Net(), LoraConfig(target_modules=["conv"]))
    with pytest.raises(ValueError, match=r"conv: pairs beside a Conv1d .* target_modules"):
        adopt(model)
