"""FedProx changes gradients as its formula says, alone and around other wrappers."""

import pytest
import torch
from torch import nn

from silotune.core import Key, Role
from silotune.optim import SGD, AdamW, FedProxConfig, GaLoreConfig, LowPassConfig
from silotune.optim.low_pass import low_pass

A, B, D = Key("q", Role.A), Key("q", Role.B), Key("q", Role.D)
HEAD = Key("classifier", Role.HEAD, "weight")
SHAPES = {A: (2, 7), B: (5, 2), D: (5, 7), HEAD: (3, 7)}
SGDS = [SGD(lr=0.3), SGD(lr=0.3, momentum=0.9)]


@pytest.fixture
def tensors():
    return {k: nn.Parameter(torch.randn(shape, dtype=torch.float64)) for k, shape in SHAPES.items()}


@pytest.mark.parametrize("inner", [*SGDS, AdamW(lr=0.1), GaLoreConfig(lr=0.1, rank=2, gap=4)])
def test_proximal_is_the_inner_optimiser_on_the_penalised_loss(inner, tensors):
    mu, targets = 0.7, {k: torch.randn_like(p) for k, p in tensors.items()}
    theirs = {k: nn.Parameter(p.detach().clone()) for k, p in tensors.items()}
    start = {k: p.detach().clone() for k, p in tensors.items()}
    ours, plain = FedProxConfig(inner, mu).build(tensors, 0.2), inner.build(theirs, 0.2)
    for _ in range(6):
        for optimizer, group, penalty in ((ours, tensors, 0.0), (plain, theirs, mu)):
            optimizer.zero_grad()
            loss = sum((p - targets[k]).pow(4).sum() for k, p in group.items())
            loss += penalty / 2 * sum((p - start[k]).pow(2).sum() for k, p in group.items())
            loss.backward()
            optimizer.step()
    for key, p in tensors.items():
        torch.testing.assert_close(p, theirs[key], rtol=1e-12, atol=1e-12)
        assert not torch.equal(p, start[key])


def test_proximal_of_nothing_is_the_inner_optimiser(tensors):
    theirs = {k: nn.Parameter(p.detach().clone()) for k, p in tensors.items()}
    ours, plain = FedProxConfig(SGDS[1], 0.0).build(tensors, 0.2), SGDS[1].build(theirs, 0.2)
    for _ in range(3):
        for key, p in tensors.items():
            p.grad = torch.randn_like(p)
            theirs[key].grad = p.grad.clone()
        ours.step()
        plain.step()
    assert all(torch.equal(p, theirs[key]) for key, p in tensors.items())


def test_proximal_pulls_towards_the_tensors_as_they_were_when_it_was_built(tensors):
    start = {k: p.detach().clone() for k, p in tensors.items()}
    optimizer = FedProxConfig(SGD(lr=1.0), 0.25).build(tensors, 1.0)
    with torch.no_grad():
        for p in tensors.values():
            p.add_(8.0)
            p.grad = torch.zeros_like(p)
    optimizer.step()
    for key, p in tensors.items():
        torch.testing.assert_close(p.detach(), start[key] + 6.0)


def test_a_negative_pull_is_refused():
    with pytest.raises(ValueError, match="must not be negative"):
        FedProxConfig(SGDS[0], -0.1)


@pytest.mark.parametrize("wrapped", [FedProxConfig(SGDS[0], 0.5), LowPassConfig(SGDS[0])])
def test_a_tensor_of_another_phase_is_left_alone(wrapped, tensors):
    before = tensors[A].detach().clone()
    optimizer = wrapped.build(tensors, 0.3)
    for key, p in tensors.items():
        p.grad = None if key == A else torch.ones_like(p)
    with torch.no_grad():
        tensors[A] += 1.0  # away from the start: there is something to pull
    optimizer.step()
    assert tensors[A].grad is None
    assert torch.equal(tensors[A], before + 1.0)
    assert wrapped.lr == 0.3


def test_the_innermost_wrapper_acts_first(tensors):
    p = tensors[A]
    optimizer = FedProxConfig(LowPassConfig(SGD(lr=1.0)), 0.5).build({A: p}, 1.0)
    gap, g = torch.randn_like(p), torch.randn_like(p)
    with torch.no_grad():
        p += gap
    before, p.grad = p.detach().clone(), g
    optimizer.step()
    torch.testing.assert_close(before - p, low_pass(g) + 0.5 * gap)
