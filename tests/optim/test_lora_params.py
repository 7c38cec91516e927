"""Pairs and scales are read off PEFT's layers, and what is no plain pair is refused."""

import pytest
import torch
from peft import (
    AdaLoraConfig,
    IA3Config,
    LoHaConfig,
    LoraConfig,
    get_peft_model,
)
from torch import nn

import toys
from silotune.adapters import LoRA, ResLoRA
from silotune.core import Key, Role
from silotune.optim import LoRAFA, LoRAPro, LoRARITE, lora_params


class Net(nn.Module):
    """Square and other layers, an embedding, a convolution and a head."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.up = nn.Linear(6, 10)
        self.same = nn.Linear(10, 10)
        self.convolution = nn.Conv1d(10, 10, 3, padding=1)
        self.classifier = nn.Linear(10, 3)

    def forward(self, ids):
        h = self.same(torch.tanh(self.up(self.embedding(ids))))
        h = self.convolution(h.mT).mT
        return self.classifier(h.mean(1))


def net(**choices):
    torch.manual_seed(0)
    choices = {"r": 4, "lora_alpha": 6, "target_modules": ["up", "same"]} | choices
    return get_peft_model(Net(), LoraConfig(**choices))


def scales(model):
    return {
        name: g["scale"] for g in lora_params(model) if g["kind"] == "pairs" for name in g["names"]
    }


UP, SAME = "base_model.model.up", "base_model.model.same"


@pytest.mark.parametrize(
    ("choices", "up", "same"),
    [
        ({}, 1.5, 1.5),
        ({"use_rslora": True}, 3.0, 3.0),
        ({"rank_pattern": {"up": 2}}, 3.0, 1.5),
        ({"alpha_pattern": {"same": 2}}, 1.5, 0.5),
        (
            {"use_rslora": True, "rank_pattern": {"up": 9}, "alpha_pattern": {"up": 12}},
            4.0,
            3.0,
        ),
        ({"lora_bias": True}, 1.5, 1.5),
    ],
)
def test_scales_are_peft_s_own(choices, up, same):
    assert scales(net(**choices)) == pytest.approx({UP: up, SAME: same})


def test_each_a_comes_with_its_b_and_a_name():
    model = net()
    (group,) = lora_params(model)
    assert group["names"] == [UP, SAME]
    expected = [
        model.get_parameter(f"{site}.lora_{role}.default.weight")
        for site in (UP, SAME)
        for role in "AB"
    ]
    assert all(p is q for p, q in zip(group["params"], expected, strict=True))


def test_all_else_that_trains_is_in_a_group_of_its_own():
    model = net(modules_to_save=["classifier"], lora_bias=True, bias="lora_only")
    pairs, rest = lora_params(model)
    names = dict(model.named_parameters())
    assert rest["kind"] == "rest"
    assert all(names[n] is p for n, p in zip(rest["names"], rest["params"], strict=True))
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    assert {id(p) for g in (pairs, rest) for p in g["params"]} == trained
    assert any("modules_to_save" in n for n in rest["names"])
    assert any("lora_B.default.bias" in n for n in rest["names"])


def test_only_the_active_adapter_is_taken():
    model = net()
    model.add_adapter("other", LoraConfig(r=2, lora_alpha=8, target_modules=["up"]))
    model.set_adapter("other")
    (group,) = lora_params(model)
    assert (group["names"], group["scale"]) == ([UP], 4.0)
    assert group["params"][0] is model.get_parameter(f"{UP}.lora_A.other.weight")


def test_a_frozen_a_stays_with_its_pair_and_can_be_frozen_here():
    model = net()
    (group,) = lora_params(model, freeze_a=True)
    assert [p.requires_grad for p in group["params"]] == [False, True, False, True]
    assert len(lora_params(model)[0]["params"]) == 4
    optimizer = LoRAFA(lora_params(model), lr=0.1)
    before = [p.detach().clone() for p in group["params"]]
    model(torch.arange(5)[None]).square().sum().backward()
    optimizer.step()
    moved = [not torch.equal(p, q) for p, q in zip(group["params"], before, strict=True)]
    assert moved == [False, True, False, True]


def test_a_whole_model_may_hold_the_peft_model_and_names_may_mislead():
    """Found through PEFT's layers: a layer of one's own that is called lora_A is none of them."""

    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = net()
            self.lora_A = nn.Linear(3, 3, bias=False)

    holder = Holder()
    pairs, rest = lora_params(holder)
    assert pairs["names"] == [f"inner.{UP}", f"inner.{SAME}"]
    assert rest["names"] == ["lora_A.weight"]


def test_a_quarter_of_the_scale_is_heard_by_lora_pro():
    """W moves as its own gradient says, whatever alpha / r is: G~ does not depend on the scale."""
    moved = []
    for alpha in (4, 16):
        model = net(lora_alpha=alpha, init_lora_weights=False)
        layer = model.get_submodule(UP)
        optimizer = LoRAPro(lora_params(model), lr=1.0, betas=(0.0, 0.0), eps=1e9)
        for group in optimizer.param_groups:
            group["lr"] = 1e9 * 1e-3  # with eps that large, AdamW takes a step of SGD's
        w = layer.get_delta_weight("default").detach().double()
        torch.manual_seed(1)
        g = torch.randn(10, 6)
        (w_a, w_b), s = (
            (layer.lora_A["default"].weight, layer.lora_B["default"].weight),
            layer.scaling["default"],
        )
        w_a.grad, w_b.grad = s * w_b.detach().T @ g, s * g @ w_a.detach().T
        optimizer.step()
        moved.append(layer.get_delta_weight("default").detach().double() - w)
    torch.testing.assert_close(*moved, rtol=0.05, atol=1e-3)


# -- what is refused


@pytest.mark.parametrize(
    ("choices", "text"),
    [
        ({"use_dora": True}, "up is PEFT's variant DoraLinearVariant"),
        ({"target_modules": ["up", "embedding"]}, "embedding adapts an embedding"),
        ({"target_modules": ["up", "convolution"]}, "convolution has factors of Conv1d"),
        ({"target_modules": None, "target_parameters": ["same.weight"]}, "adapts a bare parameter"),
    ],
)
def test_what_is_no_plain_pair_is_refused(choices, text):
    with pytest.raises(ValueError, match=f"{text}.*leave it out of target_modules"):
        lora_params(net(**choices))


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (AdaLoraConfig(target_modules=["up"], total_step=10), "has factors of"),
        (LoHaConfig(target_modules=["up"]), "is no layer of LoRA"),
        (IA3Config(target_modules=["up"], feedforward_modules=[]), "is no layer of LoRA"),
    ],
)
def test_other_tuners_are_refused(config, text):
    with pytest.raises(ValueError, match=text):
        lora_params(get_peft_model(Net(), config))


def test_a_model_without_trainable_pairs_is_refused():
    frozen = net()
    frozen.requires_grad_(False)
    for model in (Net(), frozen):
        with pytest.raises(ValueError, match="no LoRA pair that trains"):
            lora_params(model)


# -- our own adapted models


def test_an_adapted_model_of_ours_gives_the_same_kind_of_groups():
    adapted = toys.adapted(LoRA(rank=2, alpha=6.0))
    adapted.train_only({Role.A, Role.B, Role.HEAD})
    pairs, rest = lora_params(adapted)
    assert (sorted(pairs["names"]), pairs["scale"]) == (["down", "up"], 3.0)
    assert all(
        p is adapted.tensors[Key(site, role)]
        for site, a, b in zip(
            pairs["names"], pairs["params"][::2], pairs["params"][1::2], strict=True
        )
        for role, p in ((Role.A, a), (Role.B, b))
    )
    assert rest["names"] == ["classifier.head.bias", "classifier.head.weight"]
    LoRARITE([pairs, rest], lr=0.1)
    adapted.train_only({Role.B})
    assert [g["kind"] for g in lora_params(adapted)] == ["pairs"]


def test_adapters_of_ours_that_are_no_plain_pair_are_refused():
    adapted = toys.adapted(ResLoRA(pair=LoRA(rank=2)))
    with pytest.raises(ValueError, match="which is no plain pair"):
        lora_params(adapted)
