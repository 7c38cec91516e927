"""Our layers on somebody's model object."""

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig

from custom_loop_toys import bert, collate, gpt2, notes
from silotune.core import Role
from silotune.core.packed_linear import PackedLinear
from silotune.custom_loop import LoRA, adapt

PAIRS = LoRA(r=4, lora_alpha=16, target_modules=["query", "value"])


def perturbed(adapted):
    with torch.no_grad():
        for p in adapted.tensors.values():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    return adapted


def test_the_model_computes_the_same_until_it_is_trained():
    batch = collate(notes(4))["inputs"]
    before = bert()(**batch).logits
    torch.testing.assert_close(adapt(bert(), PAIRS)(**batch).logits, before)


def test_only_what_was_asked_for_is_trained():
    for train in (("B",), ("A", "B"), ("B", "head"), ("head",)):
        adapted = adapt(bert(), PAIRS, train=train)
        trained = {k.role.value for k, p in adapted.tensors.items() if p.requires_grad}
        assert trained == set(train)
        ours = {id(p) for p in adapted.trainable_parameters()}
        assert ours == {id(p) for p in adapted.model.parameters() if p.requires_grad}


def test_dropout_is_switched_off():
    adapted = adapt(bert(dropout=0.5), PAIRS)
    adapted.model.train()
    batch = collate(notes(4))["inputs"]
    assert torch.equal(adapted(**batch).logits, adapted(**batch).logits)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("lora", [PAIRS, LoRA(r=2, use_rslora=True, target_modules="all-linear")])
def test_what_is_saved_loads_in_peft(tmp_path, lora):
    adapted = perturbed(adapt(bert(), lora))
    adapted.save_pretrained(tmp_path)
    batch = collate(notes(4))["inputs"]
    loaded = PeftModel.from_pretrained(bert(), tmp_path)
    torch.testing.assert_close(loaded(**batch).logits, adapted(**batch).logits)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_a_language_model_has_no_head(tmp_path):
    adapted = perturbed(
        adapt(gpt2(), LoRA(r=2, target_modules=["c_attn"]), train=("A", "B", "head"))
    )
    assert {key.role for key in adapted.tensors} == {Role.A, Role.B}
    adapted.save_pretrained(tmp_path)
    batch = collate(notes(4))["inputs"]
    loaded = PeftModel.from_pretrained(gpt2(), tmp_path)
    torch.testing.assert_close(loaded(**batch).logits, adapted(**batch).logits)


def test_heads_by_name():
    adapted = adapt(bert(), PAIRS, heads=["bert.pooler.dense", "classifier"])
    heads = {key.site for key in adapted.tensors if key.role is Role.HEAD}
    assert heads == {"bert.pooler.dense", "classifier"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"train": ("C",)}, "train: must name some of A, B, head"),
        ({"train": ()}, "train: must name"),
        ({"train": "B"}, "train: must name"),
        ({"heads": ["classifer"]}, "heads: classifer is absent"),
        ({"heads": ["bert.embeddings"]}, "heads: bert.embeddings is a BertEmbeddings"),
        ({"lora": LoRA(target_modules=["qeury"])}, "target_modules: 'qeury' matches no module"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, words):
    lora = arguments.pop("lora", PAIRS)
    with pytest.raises(ValueError, match=words):
        adapt(bert(), lora, **arguments)


def test_a_model_without_weights_is_refused():
    with pytest.raises(ValueError, match="meta device"):
        adapt(bert().to("meta"), PAIRS)
    with pytest.raises(ValueError, match=r"^r: the rank must be"):
        LoRA(r=0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("r", "8"),
        ("r", 1.5),
        ("r", True),
        ("r", 0),
        ("lora_alpha", float("nan")),
        ("lora_alpha", 0),
        ("lora_alpha", "16"),
        ("init", "x"),
        ("target_modules", 3),
    ],
)
def test_fields_that_mean_nothing_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"^{field}: "):
        LoRA(**{field: value})


def test_what_is_no_model_is_refused():
    with pytest.raises(ValueError, match=r"^model: must be a transformers model, not a str"):
        adapt("bert", PAIRS)
    with pytest.raises(ValueError, match=r"^lora: must be a LoRA, not a dict"):
        adapt(bert(), {"r": 8})


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_layers_of_bitsandbytes_become_ours(tmp_path):
    pytest.importorskip("bitsandbytes")
    bert().save_pretrained(tmp_path)
    method = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["classifier"])
    auto = AutoModelForSequenceClassification

    def eight_bits():
        return auto.from_pretrained(tmp_path, quantization_config=method, device_map={"": "cpu"})

    adapted = perturbed(adapt(eight_bits(), PAIRS))
    assert all(isinstance(layer.base, PackedLinear) for layer in adapted.layers.values())
    adapted.model.eval()
    batch = collate(notes(4))["inputs"]
    alone = adapted(**{name: t[:1] for name, t in batch.items()}).logits
    torch.testing.assert_close(adapted(**batch).logits[:1], alone)
