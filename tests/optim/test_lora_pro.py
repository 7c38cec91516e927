"""LoRA-Pro against its paper's formulas, one pair at a time, with a Kronecker solve."""

import pytest
import torch
from torch import nn

from optim.small_pairs import (
    RANK,
    SCALE,
    SHAPES,
    difference,
    pairs,
    products,
    random,
    set_gradients,
    train,
)
from silotune.core import Key, Role
from silotune.optim import AdamW, FedProxConfig, LoRAProConfig

HEAD = Key("classifier", Role.HEAD, "weight")


def equivalent(a, b, ga, gb, s, damping=0.0):
    """The closed form; X by a linear system of r^2 unknowns."""
    r = a.shape[0]
    eye = torch.eye(r).double()
    kb = torch.linalg.pinv(b.T @ b + damping * eye)
    ka = torch.linalg.pinv(a @ a.T + damping * eye)
    if not b.any():
        kb = torch.zeros_like(kb)
    out = torch.eye(b.shape[0]).double()
    first_a, first_b = kb @ ga / s**2, (out - b @ kb @ b.T) @ gb @ ka / s**2
    right = -first_a @ a.T + ga @ a.T - b.T @ (gb - first_b)
    system = torch.kron(b.T @ b, eye) + torch.kron(eye, a @ a.T)
    x = torch.linalg.solve(system, right.reshape(-1)).reshape(r, r)
    return first_a + x @ a, first_b - b @ x


def adam(g, memory):
    """Adam's N."""
    t = memory["t"] = memory.get("t", 0) + 1
    m = memory["m"] = 0.9 * memory.get("m", 0.0) + 0.1 * g
    v = memory["v"] = 0.999 * memory.get("v", 0.0) + 0.001 * g * g
    return (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)


def papers_products(tensors, steps, *, full, lr, wd, damping, scale):
    memory, trajectory = {}, []
    for _ in range(steps):
        set_gradients(tensors, scale=scale)
        for site in SHAPES:
            pa, pb = tensors[Key(site, Role.A)], tensors[Key(site, Role.B)]
            a, b = pa.detach().clone(), pb.detach().clone()
            ga, gb = equivalent(a, b, pa.grad, pb.grad, scale, damping)
            if full:
                whole = scale * (b @ ga + gb @ a)
                n = adam(whole, memory.setdefault(site, {}))
                ga, gb = equivalent(a, b, scale * b.T @ n, scale * n @ a.T, scale, damping)
            else:
                ga = adam(ga, memory.setdefault((site, "A"), {}))
                gb = adam(gb, memory.setdefault((site, "B"), {}))
            pa.data = a - lr * (ga + wd * a)
            pb.data = b - lr * (gb + wd * b)
        trajectory.append(products(tensors))
    return trajectory


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("full", [False, True])
def test_it_is_the_papers_algorithm(full, zero):
    numbers = {"lr": 0.02, "wd": 0.1, "damping": 1e-3, "scale": 2.3, "full": full}
    expected = papers_products(pairs(zero=zero), 8, **numbers)
    tensors = pairs(zero=zero)
    pro = LoRAProConfig(lr=9.0, scale=2.3, weight_decay=0.1, damping=1e-3, full_moments=full)
    assert difference(train(pro.build(tensors, 0.02), tensors, 8, scale=2.3), expected) < 1e-7
    other = papers_products(pairs(zero=zero), 8, **(numbers | {"scale": 1.0}))
    assert difference(other, expected) > 1e-3, "the scale counts"


@pytest.mark.parametrize("full", [False, True])
def test_noised_gradients_at_b_0_are_not_divided_by_0(full):
    tensors = pairs(zero=True)
    pro = LoRAProConfig(lr=0.01, scale=SCALE, damping=0.0, full_moments=full)
    optimizer = pro.build(tensors, 0.01)
    before = {k: p.detach().clone() for k, p in tensors.items()}
    for i in range(3):
        for key, p in tensors.items():
            p.grad = random(len(str(key)) + i, *p.shape)
        optimizer.step()
    for key, p in tensors.items():
        assert p.isfinite().all()
        assert not torch.equal(p, before[key])


def test_exact_gradients_at_b_0_move_b_alone():
    tensors = pairs(zero=True)
    before = {k: p.detach().clone() for k, p in tensors.items()}
    train(LoRAProConfig(lr=0.01, scale=SCALE).build(tensors, 0.01), tensors, 1)
    for key, p in tensors.items():
        assert torch.equal(p, before[key]) == (key.role is Role.A)


def test_full_moments_are_two_whole_matrices_a_layer():
    tensors = pairs()
    optimizer = LoRAProConfig(lr=0.1, scale=SCALE, full_moments=True).build(tensors, 0.1)
    train(optimizer, tensors, 1)
    kept = [t for memory in optimizer.state.values() for t in memory.values()]
    numbers = sum(t.numel() for t in kept if torch.is_tensor(t))
    assert numbers == sum(2 * out * into for out, into in SHAPES.values())


@pytest.mark.parametrize("full", [False, True])
def test_heads_are_moved_by_adamw(full):
    tensors = pairs() | {HEAD: nn.Parameter(random(5, 3, 4))}
    theirs = nn.Parameter(tensors[HEAD].detach().clone())
    pro = LoRAProConfig(lr=0.1, scale=SCALE, weight_decay=0.3, full_moments=full)
    ours, adamw = pro.build(tensors, 0.1), AdamW(lr=0.1, weight_decay=0.3)
    alone = adamw.build({HEAD: theirs}, 0.1)
    for i in range(4):
        set_gradients({k: p for k, p in tensors.items() if k != HEAD})
        tensors[HEAD].grad, theirs.grad = random(i, 3, 4), random(i, 3, 4)
        ours.step()
        alone.step()
        torch.testing.assert_close(tensors[HEAD], theirs)


def test_proximal_pulls_before_gradients_are_replaced():
    """The pull is part of the loss, so LoRA-Pro's formulas are for what it gives."""
    mu = 0.7
    tensors, theirs = pairs(), pairs()
    start = {k: p.detach().clone() for k, p in tensors.items()}
    pro = LoRAProConfig(lr=0.05, scale=SCALE)
    ours, plain = FedProxConfig(pro, mu).build(tensors, 0.05), pro.build(theirs, 0.05)
    for _ in range(4):
        set_gradients(tensors)
        ours.step()
        set_gradients(theirs)
        for key, p in theirs.items():
            p.grad = p.grad + mu * (p.detach() - start[key])
        plain.step()
    for key, p in tensors.items():
        torch.testing.assert_close(p, theirs[key], rtol=1e-10, atol=1e-12)


def test_negative_damping_is_refused():
    with pytest.raises(ValueError, match=r"damping: must not be negative"):
        LoRAProConfig(lr=0.1, scale=1.0, damping=-1e-3)


def test_small_linear_algebra_is_in_float64_where_factors_are_not():
    """B of about 1e-4, as after a first step: B^T B has less than float32 can tell."""
    exact = pairs()
    with torch.no_grad():
        for key, p in exact.items():
            if key.role is Role.B:
                p.mul_(1e-4)
    single = {k: nn.Parameter(p.detach().float()) for k, p in exact.items()}
    for tensors in (exact, single):
        for key, p in tensors.items():
            p.grad = random(len(str(key)), RANK, RANK)[:1, :1].to(p.dtype) * torch.ones_like(p)
        LoRAProConfig(lr=0.01, scale=SCALE).build(tensors, 0.01).step()
    for key, p in single.items():
        torch.testing.assert_close(p.double(), exact[key], rtol=1e-3, atol=1e-5)
