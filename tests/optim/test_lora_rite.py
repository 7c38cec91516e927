"""LoRA-RITE against its paper's formulas and against pytorch_optimizer's."""

import math

import numpy as np
import pytest
import torch
from pytorch_optimizer import LoRARite as Theirs
from scipy.linalg import sqrtm
from torch import nn

from optim.small_pairs import (
    RANK,
    SHAPES,
    difference,
    pairs,
    products,
    random,
    set_gradients,
    train,
)
from silotune.core import Key, Role
from silotune.optim import LoRARITEConfig
from silotune.optim.lora_rite import decay

BETAS = (0.8, 0.95)


def in_the_paper(rows, other, gradient, memory, *, eps, escape):
    """A step of a tall factor (rows, r), with polar bases; the memory is a dictionary."""
    u, s, vh = np.linalg.svd(other, full_matrices=False)
    basis, size = u @ vh, vh.T @ np.diag(s) @ vh
    inverse = np.linalg.pinv(size)
    g = gradient @ inverse
    r = g.shape[1]
    t = memory["t"] = memory.get("t", 0) + 1
    b1, b2 = (b * (1 - b ** (t - 1)) / (1 - b**t) for b in BETAS)
    p = basis.T @ memory.get("basis", np.zeros_like(basis))
    old = memory.get("V", np.zeros((r, r)))
    moved = p @ old @ p.T
    if escape:
        loss = np.linalg.eigvalsh(old) - np.linalg.eigvalsh(moved)
        lost = max(0.0, min(loss.max(), np.trace(old) - np.trace(moved)))
        memory["rho"] = b2 * (memory.get("rho", 0.0) + lost)
    memory["V"] = (1 - b2) * g.T @ g / rows + b2 * moved
    root = np.real(sqrtm(memory["V"] + memory.get("rho", 0.0) * np.eye(r)))
    s_ = g @ np.linalg.inv(root + eps * np.eye(r))
    memory["M"] = b1 * memory.get("M", np.zeros_like(g)) @ p.T + (1 - b1) * s_
    memory["basis"] = basis
    return memory["M"] @ inverse.T


def papers_products(tensors, steps, *, lr, wd, escape, eps):
    memory, trajectory = {}, []
    for _ in range(steps):
        set_gradients(tensors)
        for site, (out, into) in SHAPES.items():
            a, b = tensors[Key(site, Role.A)], tensors[Key(site, Role.B)]
            left, right = a.detach().numpy().T.copy(), b.detach().numpy().copy()
            g_left, g_right = a.grad.numpy().T, b.grad.numpy()
            one, two = (memory.setdefault((site, side), {}) for side in "LR")
            dl = in_the_paper(into, right, g_left, one, eps=eps, escape=escape)
            dr = in_the_paper(out, left, g_right, two, eps=eps, escape=escape)
            a.data -= lr * torch.from_numpy((dl + wd * left).T)
            b.data -= lr * torch.from_numpy(dr + wd * right)
        trajectory.append(products(tensors))
    return trajectory


@pytest.mark.parametrize("escape", [False, True])
def test_it_is_the_papers_algorithm(escape):
    numbers = {"lr": 0.03, "wd": 0.2, "eps": 1e-3, "escape": escape}
    expected = papers_products(pairs(), 12, **numbers)
    tensors = pairs()
    rite = LoRARITEConfig(
        lr=9.0, weight_decay=0.2, betas=BETAS, eps=1e-3, escape=escape, clip_unmagnified_grad=0.0
    )
    assert difference(train(rite.build(tensors, 0.03), tensors, 12), expected) < 1e-10
    other = papers_products(pairs(), 12, **(numbers | {"escape": not escape}))
    assert difference(other, expected) > 1e-6, "escaped mass changes something here"


@pytest.mark.parametrize("clip", [0.0, 1.0, 0.03])
@pytest.mark.parametrize("escape", [False, True])
@pytest.mark.parametrize("zero", [False, True])
def test_it_is_what_pytorch_optimizer_does(escape, zero, clip):
    """That one pairs tensors by their order, and skips unless told not to."""
    theirs, ours = pairs(zero=zero), pairs(zero=zero)
    in_order = [theirs[Key(s, role)] for s in SHAPES for role in (Role.A, Role.B)]
    package = Theirs(
        in_order,
        lr=0.02,
        betas=BETAS,
        eps=1e-8,
        weight_decay=0.1,
        apply_escape=escape,
        clip_unmagnified_grad=clip,
        update_skipping=0.0,
    )
    rite = LoRARITEConfig(
        lr=0.02,
        weight_decay=0.1,
        betas=BETAS,
        eps=1e-8,
        escape=escape,
        clip_unmagnified_grad=clip,
    )
    expected = train(package, theirs, 10)
    assert difference(train(rite.build(ours, 0.02), ours, 10), expected) < 1e-9
    for key, p in ours.items():
        torch.testing.assert_close(p, theirs[key], rtol=1e-7, atol=1e-9)


def test_a_first_step_at_b_0_moves_b_alone_and_the_second_moves_a():
    tensors = pairs(zero=True)
    before = {k: p.detach().clone() for k, p in tensors.items()}
    optimizer = LoRARITEConfig(lr=0.01).build(tensors, 0.01)
    train(optimizer, tensors, 1)
    for key, p in tensors.items():
        assert torch.equal(p, before[key]) == (key.role is Role.A)
    train(optimizer, tensors, 1)
    for key, p in tensors.items():
        assert p.isfinite().all()
        assert not torch.equal(p, before[key])


def test_a_first_step_has_equal_singular_values():
    """With an empty memory it is the orthogonal factor of g~, times sqrt(rows)."""
    tensors = pairs(zero=True)
    train(LoRARITEConfig(lr=0.1, eps=1e-14).build(tensors, 0.1), tensors, 1)
    for site, (out, _) in SHAPES.items():
        a, b = tensors[Key(site, Role.A)].detach(), tensors[Key(site, Role.B)].detach()
        sizes = torch.linalg.svdvals(b @ torch.linalg.qr(a.mT).R.mT)
        torch.testing.assert_close(sizes, torch.full_like(sizes, 0.1 * out**0.5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_factors_of_lower_rank_do_no_harm(dtype):
    """The sum of two rows, computed in the factors' own type, is not a third direction."""
    tensors = {k: nn.Parameter(p.detach().to(dtype)) for k, p in pairs().items()}
    with torch.no_grad():
        tensors[Key("q", Role.A)][2] = 0.3 * tensors[Key("q", Role.A)][:2].sum(dim=0)
        tensors[Key("v", Role.B)][:, 0] = 0.7 * tensors[Key("v", Role.B)][:, 1]
        tensors[Key("up", Role.B)].zero_()
    start = products(tensors)
    for key, p in tensors.items():
        p.grad = random(len(str(key)), *p.shape).to(dtype)
    LoRARITEConfig(lr=0.01).build(tensors, 0.01).step()
    for site, product in products(tensors).items():
        assert product.isfinite().all()
        assert 0.0 < (product - start[site]).abs().max() < 1.0


def test_large_gradients_are_not_skipped():
    """What a gradient is multiplied by divides out, but for eps; the authors' code stands still."""
    moved = []
    for factor in (1.0, 1e6):
        tensors = pairs()
        set_gradients(tensors)
        for p in tensors.values():
            p.grad *= factor
        LoRARITEConfig(lr=0.01, eps=1e-12).build(tensors, 0.01).step()
        moved.append(products(tensors))
    assert difference(moved[:1], moved[1:]) < 1e-9
    assert difference(moved[:1], [products(pairs())]) > 1e-3


def test_the_authors_clip_is_the_default_and_counts_every_pair_together():
    """A gradient of one pair shortens the step of another; without a clip it does not."""
    moved = {}
    for clip in (1.0, 0.0):
        for factor in (1.0, 100.0):
            tensors = pairs()
            rite = LoRARITEConfig(lr=0.1, clip_unmagnified_grad=clip).build(tensors, 0.1)
            set_gradients(tensors)
            rite.step()  # the first step does not see how long a gradient is
            set_gradients(tensors)
            for key, p in tensors.items():
                if key.site == "q":
                    p.grad *= factor
            before = products(tensors)["v"]
            rite.step()
            moved[clip, factor] = products(tensors)["v"] - before
    assert LoRARITEConfig(lr=0.1).clip_unmagnified_grad == 1.0
    assert torch.equal(moved[0.0, 1.0], moved[0.0, 100.0])
    apart = torch.linalg.norm(moved[1.0, 1.0] - moved[1.0, 100.0])
    assert apart > 0.05 * torch.linalg.norm(moved[1.0, 1.0])


ROWS_TIMES_EPS = 11008 * torch.finfo(torch.float32).eps


def a_step_of_a_large_pair(condition: float, cutoff: float | None) -> torch.Tensor:
    """B A times a few vectors, less what it was: 11008 x 4096, float32, of that condition."""
    out, into, rank = 11008, 4096, 8
    turn = torch.linalg.qr(random(1, rank, rank)).Q
    turn = turn * torch.logspace(0.0, -math.log10(condition), rank)
    a, b = torch.linalg.solve(turn, random(2, rank, into)), random(3, out, rank) @ turn
    tensors = {Key("q", Role.A): nn.Parameter(a.float()), Key("q", Role.B): nn.Parameter(b.float())}
    a, b = tensors.values()
    vectors = random(4, into, 5)
    before = b.detach().double() @ (a.detach().double() @ vectors)
    left, right = random(5, out, 64).float() * 1e-3, random(6, 64, into).float()  # the gradient
    a.grad, b.grad = (b.detach().mT @ left) @ right, left @ (right @ a.detach().mT)
    LoRARITEConfig(lr=0.01, cutoff=cutoff).build(tensors, 0.01).step()
    return b.detach().double() @ (a.detach().double() @ vectors) - before


def test_a_large_ill_conditioned_layer_in_float32_moves_as_a_well_conditioned_one():
    """With rows times eps for a cut-off, a part of the step was lost."""
    plain = a_step_of_a_large_pair(1.0, None)
    apart = [
        float(torch.linalg.norm(a_step_of_a_large_pair(1e3, cutoff) - plain) / plain.norm())
        for cutoff in (None, ROWS_TIMES_EPS)
    ]
    assert apart[0] < 1e-3
    assert apart[1] > 0.1


def test_its_memory_is_positive_and_nothing_escapes_where_no_basis_turns():
    tensors = pairs()
    optimizer = LoRARITEConfig(lr=0.1, betas=BETAS, escape=True).build(tensors, 0.1)
    train(optimizer, tensors, 5)
    for memory in optimizer.state.values():
        square = memory["square"]
        assert torch.equal(square, square.mT)
        assert torch.linalg.eigvalsh(square).min() > -1e-12
        assert memory["escaped"] > 0.0
    still = LoRARITEConfig(lr=0.0, betas=BETAS, escape=True).build(tensors, 0.0)
    train(still, tensors, 5)
    assert max(memory["escaped"] for memory in still.state.values()) < 1e-10


def test_it_remembers_as_much_as_adam_and_two_small_matrices_a_pair():
    tensors = pairs()
    optimizer = LoRARITEConfig(lr=0.1).build(tensors, 0.1)
    train(optimizer, tensors, 1)
    sides = optimizer.state.values()
    numbers = sum(t.numel() for side in sides for t in side.values() if torch.is_tensor(t))
    assert numbers == sum(2 * RANK * (o + i) + 2 * RANK**2 + 2 for o, i in SHAPES.values())


def test_the_first_decay_is_0_and_later_ones_are_those_of_a_mean_without_bias():
    assert decay(0.9, 1) == 0.0
    mean, plain = 0.0, 0.0
    for t, x in enumerate([3.0, -1.0, 4.0, 1.0], start=1):
        mean = (1 - decay(0.9, t)) * x + decay(0.9, t) * mean
        plain = 0.1 * x + 0.9 * plain
        assert mean == pytest.approx(plain / (1 - 0.9**t))
