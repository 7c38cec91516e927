"""LoRA+ and LoRA-FA against PEFT's, on a model of PEFT's own."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.optimizers import create_lorafa_optimizer, create_loraplus_optimizer
from torch import nn

from optim.small_pairs import SCALE, SHAPES, pairs, random, set_gradients
from silotune.core import Key, Role
from silotune.optim import AdamW, LoRAFAConfig, LoRAPlusConfig

HEAD = Key("classifier", Role.HEAD, "weight")
RANK, ALPHA = 2, 6


@pytest.fixture
def peft(monkeypatch):
    """A model with two adapted layers; its tensors by our keys, and copies of them."""

    def make(**choices):
        torch.manual_seed(0)
        base = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).double()
        config = LoraConfig(
            r=RANK, lora_alpha=ALPHA, target_modules=["0", "2"], init_lora_weights=False, **choices
        )
        model = get_peft_model(base, config).double()
        theirs = {
            Key(site, role): model.get_parameter(
                f"base_model.model.{site}.lora_{role}.default.weight"
            )
            for site in "02"
            for role in (Role.A, Role.B)
        }
        return model, theirs, {k: nn.Parameter(p.detach().clone()) for k, p in theirs.items()}

    return make


def both_step(model, theirs, ours, optimizers, steps=6):
    for i in range(steps):
        for optimizer in optimizers:
            optimizer.zero_grad()
        (1e4 * model(random(i, 10, 6)).square().mean()).backward()  # far above every eps
        for key, p in theirs.items():
            ours[key].grad = None if p.grad is None else p.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
        for key, p in theirs.items():
            torch.testing.assert_close(ours[key], p, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("rslora", [False, True])
def test_lora_fa_is_what_peft_does(peft, rslora):
    model, theirs, ours = peft(use_rslora=rslora)
    package = create_lorafa_optimizer(model, r=RANK, lora_alpha=ALPHA, lr=0.01)
    package.param_groups[0]["eps"] = 1e-8  # as ours
    scale = ALPHA / (RANK**0.5 if rslora else RANK)
    fa = LoRAFAConfig(lr=9.0, scale=scale).build(ours, 0.01)
    before = {k: p.detach().clone() for k, p in ours.items()}
    both_step(model, theirs, ours, (package, fa))
    for key, p in ours.items():
        assert torch.equal(p, before[key]) == (key.role is Role.A)


def test_lora_plus_is_what_peft_does(peft):
    model, theirs, ours = peft()
    package = create_loraplus_optimizer(
        model, torch.optim.AdamW, lr=0.01, loraplus_lr_ratio=4.0, loraplus_weight_decay=0.1
    )
    plus = LoRAPlusConfig(lr=9.0, ratio=4.0, weight_decay=0.1).build(ours, 0.01)
    both_step(model, theirs, ours, (package, plus))


def test_lora_plus_of_ratio_1_is_adamw_and_heads_go_with_a():
    tensors = pairs() | {HEAD: nn.Parameter(random(5, 3, 4))}
    theirs = {k: nn.Parameter(p.detach().clone()) for k, p in tensors.items()}
    adamw = AdamW(lr=0.1, weight_decay=0.2)
    plus = LoRAPlusConfig(lr=0.1, ratio=1.0, weight_decay=0.2).build(tensors, 0.1)
    faster = LoRAPlusConfig(lr=0.1, ratio=3.0).build({HEAD: tensors[HEAD]}, 0.1)
    optimizers = plus, adamw.build(theirs, 0.1)
    for i in range(3):
        for j, key in enumerate(tensors):
            tensors[key].grad = theirs[key].grad = random(50 * i + j, *tensors[key].shape)
        for optimizer in optimizers:
            optimizer.step()
    for key, p in tensors.items():
        torch.testing.assert_close(p, theirs[key])
    assert [g["lr"] for g in faster.param_groups if g["params"]] == [0.1]


@pytest.mark.parametrize("scale", [1.0, SCALE])
def test_lora_fa_moves_w_by_the_projection_of_its_own_gradient(scale):
    tensors = pairs()
    set_gradients(tensors, (Role.B,), scale)
    whole = {}
    for site in SHAPES:
        a, b = tensors[Key(site, Role.A)].detach(), tensors[Key(site, Role.B)]
        whole[site] = (b.grad / scale) @ torch.linalg.pinv(a.T)  # G P_A, from s G A^T
    fa = LoRAFAConfig(lr=0.1, scale=scale, damping=0.0).build(tensors, 0.1)
    given = {site: tensors[Key(site, Role.B)].grad.clone() for site in SHAPES}
    fa.step()
    for site in SHAPES:
        a, b = tensors[Key(site, Role.A)].detach(), tensors[Key(site, Role.B)]
        moved_along = fa.state[b]["exp_avg"] / 0.1  # what AdamW was given, as its first mean
        torch.testing.assert_close(scale * moved_along @ a, whole[site] @ torch.linalg.pinv(a) @ a)
        assert torch.equal(b.grad, given[site]), "gradients are left as they were"


def test_lora_fa_of_orthonormal_rows_is_adamw():
    tensors = pairs()
    with torch.no_grad():
        for key, p in tensors.items():
            if key.role is Role.A:
                p.copy_(torch.linalg.qr(p.mT).Q.mT)
    theirs = {k: nn.Parameter(p.detach().clone()) for k, p in tensors.items()}
    ours = LoRAFAConfig(lr=0.1, scale=1.0, damping=0.0).build(tensors, 0.1)
    plain = AdamW(lr=0.1).build(theirs, 0.1)
    for _ in range(4):
        set_gradients(tensors, (Role.B,))
        set_gradients(theirs, (Role.B,))
        ours.step()
        plain.step()
    for key, p in tensors.items():
        torch.testing.assert_close(p, theirs[key], rtol=1e-10, atol=1e-12)


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match=r"damping"):
        LoRAFAConfig(lr=0.1, scale=1.0, damping=-1.0)
    with pytest.raises(ValueError, match=r"lora_plus_ratio: must be positive"):
        LoRAPlusConfig(lr=0.1, ratio=0.0)
