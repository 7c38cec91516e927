"""Experts that a model keeps in one tensor: trained as pairs, and the same to PEFT."""

import copy
import re
from functools import cache

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    Llama4ForCausalLM,
    Llama4TextConfig,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

import silotune as st
from federation.objects import federation
from silotune.adapters import load_peft, merge, save_peft
from silotune.adapters.start import read_start
from silotune.core import Factors, Key, Role, generator
from silotune.federation.adapter_check import refuse_unloadable
from silotune.linalg import LowRank
from silotune.models.load import GivenModel, quiet
from silotune.models.target_parameters import expert_stacks
from silotune.terms.machine import Machine
from silotune.terms.opening import open_model, short_records
from silotune.terms.terms import Terms
from silotune.testing import tiny_models
from silotune.testing.tiny_models import byte_tokenizer, draw_weights

SMALL = {
    "vocab_size": 260,
    "hidden_size": 16,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
MODELS = {
    "mixtral": lambda: MixtralForCausalLM(MixtralConfig(**SMALL, num_local_experts=3)),
    "qwen3_moe": lambda: Qwen3MoeForCausalLM(
        Qwen3MoeConfig(**SMALL, num_experts=3, num_experts_per_tok=2, moe_intermediate_size=12)
    ),
    "gpt_oss": lambda: GptOssForCausalLM(
        GptOssConfig(**SMALL, num_local_experts=3, num_experts_per_tok=2)
    ),
    "llama4_text": lambda: Llama4ForCausalLM(
        Llama4TextConfig(**SMALL, num_local_experts=3, intermediate_size_mlp=12)
    ),
}
BOTH = ("experts.gate_up_proj", "experts.down_proj")
UP, DOWN = (f"model.layers.0.mlp.experts.{name}_proj" for name in ("gate_up", "down"))


@cache
def base(name):
    with quiet():
        return GivenModel(draw_weights(MODELS[name]()), byte_tokenizer())


def terms(
    name="mixtral",
    method=st.methods.FedIT,
    privacy=None,
    dtype="float32",
    weighting="num_examples",
    **options,
):
    return Terms(
        model=name,
        objective=st.CausalLM(text="text", max_length=8),
        optimizer=st.optim.SGD(lr=0.5),
        method=method(**{"r": 2, "target_parameters": BOTH, **options}),
        privacy=privacy or st.NoDP(),
        dtype=dtype,
        weighting=weighting,
    )


def opened(asked):
    return open_model(asked, (), Machine(micro_batch_size=8), base(asked.model))


def moved(model, **ranks):
    """Factors that are not zero; sites of a rank of their own."""
    found = {}
    for key, tensor in model.first.items():
        shape = list(tensor.shape)
        if key.site in ranks:
            shape[0 if key.role is Role.A else 1] = ranks[key.site]
        found[key] = 0.3 * torch.randn(shape, generator=generator("moved", str(key)))
    return Factors(found)


def logits(model, batch):
    inputs = {name: t for name, t in batch.items() if name != "labels"}
    with torch.inference_mode():
        return model.eval()(**inputs).logits


@pytest.mark.parametrize(
    ("name", "targets"),
    [("mixtral", None), ("qwen3_moe", ()), ("gpt_oss", ()), ("llama4_text", None)],
)
def test_peft_loads_the_pairs_of_experts_and_gives_the_same_logits(name, targets, tmp_path):
    """Also where ranks differ, as they do when rounds are folded; and so does the merged model."""
    asked = terms(name, target_modules=targets)
    model = opened(asked)
    assert refuse_unloadable(model, asked).endswith("computes the same")
    adapted = model.trainer.adapted
    parameter = next(iter(model.layout.target_parameters))
    factors = moved(model, **{f"{parameter}[1]": 3})
    save_peft(tmp_path, factors, model.axes.adapter, model.sites, model.layout)
    adapted.load(factors)
    batch = short_records(model, asked)
    ours = logits(adapted.model, batch)
    with quiet():
        loaded = PeftModel.from_pretrained(copy.deepcopy(base(name).model), tmp_path)
    theirs = logits(loaded, batch)
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(ours, logits(base(name).model, batch), atol=1e-3)
    merged = merge(adapted, model.loaded.heads)
    torch.testing.assert_close(logits(merged, batch), ours, rtol=1e-4, atol=1e-5)
    assert [n for n, _ in merged.named_parameters()] == [
        n for n, _ in base(name).model.named_parameters()
    ]


def test_a_tensor_of_three_dimensions_need_not_be_of_experts():
    """Heads of an attention (XLNet), positions of a picture, a convolution."""
    model = nn.Sequential(nn.Conv1d(3, 3, 3), nn.Linear(2, 2))
    model[1].num_attention_heads = 4
    model[1].of_heads = nn.Parameter(torch.zeros(4, 2, 2))
    assert not expert_stacks(model)
    model[1].num_experts = 4
    assert list(expert_stacks(model)) == ["1.of_heads"]


def test_gradients_of_every_expert_are_those_of_its_slice():
    """Against autograd of the whole tensor: dA = s B^T dW, dB = s dW A^T."""
    asked = terms("qwen3_moe")
    model = opened(asked)
    adapted, factors, batch = model.trainer.adapted, moved(model), short_records(model, asked)
    adapted.load(factors)
    merged = merge(opened(asked).trainer.adapted, ())
    with torch.no_grad():
        for name in model.layout.target_parameters:
            for e, whole in enumerate(merged.get_parameter(name)):
                whole.add_(model.axes.adapter.scale * factors.pair(f"{name}[{e}]").dense())
        for site in model.sites:
            if "[" not in site.name:
                pair = factors.pair(site.name).dense()
                merged.get_submodule(site.name).weight.add_(model.axes.adapter.scale * pair)
    stacks = [
        merged.get_parameter(name).requires_grad_() for name in model.layout.target_parameters
    ]
    losses = asked.objective.losses
    gradients = torch.autograd.grad(losses(merged, batch).sum(), stacks)
    adapted.train_only({Role.A, Role.B})
    with adapted.sink.summed():
        adapted.losses(losses, batch).sum().backward()
    scale, hit = model.axes.adapter.scale, 0
    for name, whole in zip(model.layout.target_parameters, gradients, strict=True):
        for e, gradient in enumerate(whole):
            a, b = (Key(f"{name}[{e}]", role) for role in (Role.A, Role.B))
            expected = scale * factors[b].T @ gradient, scale * gradient @ factors[a].T
            for key, right in zip((a, b), expected, strict=True):
                torch.testing.assert_close(adapted.tensors[key].grad, right, rtol=1e-3, atol=1e-6)
            hit += bool(gradient.any())
    assert hit > 6


def test_what_is_saved_is_read_back_with_folds(tmp_path):
    model = opened(terms(target_modules=()))
    site = f"{UP}[2]"
    fold = {site: LowRank(torch.randn(24, 1), torch.randn(1, 16))}
    factors = moved(model)
    shapes = {key: tuple(t.shape) for key, t in factors.items()}
    how = (model.axes.adapter, model.sites, model.layout)
    save_peft(tmp_path / "plain", factors, *how)
    read = (shapes, model.axes.adapter, 1.0, {}, model.layout.target_parameters)
    found, folded = load_peft(tmp_path / "plain", *read)
    assert not folded
    for key, tensor in factors.items():
        torch.testing.assert_close(found[key], tensor, rtol=0, atol=0)
    started = read_start(
        tmp_path / "plain", "mixtral", model.first, model.axes.adapter, 1.0, {}, read[-1]
    )
    assert all(torch.equal(started[key], factors[key]) for key in factors)
    save_peft(tmp_path / "folded", factors, *how, fold)
    found, folded = load_peft(tmp_path / "folded", *read)
    whole = found.pair(site).dense() + folded[site].to(torch.float32).dense()
    expected = factors.pair(site).dense() + fold[site].dense()
    torch.testing.assert_close(whole, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", [st.methods.FFALoRA, st.methods.FLoRA, st.methods.FlexLoRA])
def test_methods_of_pairs_can_have_them(method):
    model = opened(terms(method=method, target_modules=()))
    assert len(model.sites) == 2 * 2 * 3


def test_where_clients_are_hidden_no_single_record_need_have_a_gradient():
    privacy = st.ClientDP(noise_multiplier=1.0, target_delta=1e-3)
    assert opened(terms(privacy=privacy, target_modules=(), weighting="uniform"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target_parameters": ["experts.up"]}, r"'experts.up' matches no parameter; this model's"),
        ({"target_parameters": ["q_proj.weight"]}, r"q_proj.weight is no tensor .* target_modules"),
        ({"layers_to_transform": [7]}, r"layers_to_transform: no target"),
    ],
)
def test_what_is_no_stack_of_experts_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        opened(terms(**({"target_modules": ()} | changes)))


def test_a_run_learns_by_its_experts_and_is_read_back(tmp_path):
    """With folds, which are of a rank of their own in every expert."""
    folder = tiny_models._save_with_tokenizer(MODELS["mixtral"](), tmp_path / "base", 0)
    records = {"east": [{"text": "a b"}] * 4, "west": [{"text": "c d e"}] * 4}
    run = federation(
        folder,
        clients=records,
        objective=st.CausalLM(text="text", max_length=8),
        method=st.methods.FedExLoRA(r=2, target_modules=(), target_parameters=BOTH),
        optimizer=st.optim.AdamW(lr=0.02),
        rounds=2,
        batch_size=4,
        valid_fraction=0.0,
        evaluation="public",
        valid=[{"text": "a b"}, {"text": "c d e"}],
    ).fit(tmp_path / "run")
    assert run.facts.adapter_check.endswith("computes the same")
    assert run.metrics[-1].metrics["loss"] < run.metrics[0].metrics["loss"]
    loaded = st.load(tmp_path / "run")
    batch = loaded.tokenizer("a b", return_tensors="pt")
    ours = logits(loaded.model, batch)
    torch.testing.assert_close(logits(run.merged_model(), batch), ours, rtol=1e-4, atol=1e-5)
    with quiet():
        plain = AutoModelForCausalLM.from_pretrained(folder)
        assert not torch.allclose(logits(plain, batch), ours, atol=1e-3)
        theirs = PeftModel.from_pretrained(plain, tmp_path / "run" / "adapter")
    torch.testing.assert_close(logits(theirs, batch), ours, rtol=1e-4, atol=1e-5)


DP = st.ExampleDP(noise_multiplier=1.0, target_delta=1e-3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"privacy": DP}, r"target_parameters: a record's tokens .*unit: client or none"),
        ({"method": st.methods.ResLoRA}, r"target_parameters: .*ResLoRA; leave it out, or take"),
        ({"lora_dropout": 0.1}, r"lora_dropout: must be 0"),
        ({"dtype": "bfloat16"}, r"target_parameters: .*dtype to float32"),
    ],
)
def test_terms_that_experts_cannot_be_trained_by_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        terms(**changes)


@pytest.mark.parametrize(
    ("privacy", "words"),
    [(None, r"target_parameters: \[experts.down_proj, .* does"), (DP, "stay as they are")],
)
def test_all_linear_says_what_reaches_the_experts(privacy, words):
    asked = terms(privacy=privacy, target_modules="all-linear", target_parameters=None)
    model = open_model(asked, (), Machine(micro_batch_size=1), base("mixtral"))
    [notice] = [n for n in model.loaded.notices if "does not reach" in n]
    assert re.search(words, notice)
