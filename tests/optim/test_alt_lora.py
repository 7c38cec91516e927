"""AltLoRA against its paper's formulas, one pair at a time."""

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
    whole_gradient,
)
from silotune.core import Key, Role
from silotune.optim import SGD, AdamW, AltLoRAConfig

HEAD = Key("classifier", Role.HEAD, "weight")
IN_TURN = ((Role.B,), (Role.A,))


def papers_products(tensors, steps, phases, *, plus, lr, wd, damping, b1=0.9, b2=0.95):
    """Algorithm 1, and its variant with a second moment."""
    memory, trajectory, eye = {}, [], torch.eye(RANK).double()
    for step in range(steps):
        (role,) = phases[step % 2]
        set_gradients(tensors, (role,))
        for site in SHAPES:
            a, b = tensors[Key(site, Role.A)], tensors[Key(site, Role.B)]
            one = memory.setdefault((site, role), {"t": 0, "m": 0.0, "v": 0.0})
            if role is Role.A:
                stays = b.detach().clone()
                k = torch.linalg.inv(stays.T @ stays + damping * eye)
                g = k @ a.grad / SCALE**2
                carried = k @ stays.T @ one["old"] @ one["m"] if one["t"] else 0.0
            else:
                stays = a.detach().clone()
                k = torch.linalg.inv(stays @ stays.T + damping * eye)
                g = b.grad @ k / SCALE**2
                carried = one["m"] @ one["old"] @ stays.T @ k if one["t"] else 0.0
            one["t"] += 1
            one["m"], one["old"] = b1 * carried + (1 - b1) * g, stays
            n = one["m"] / (1 - b1 ** one["t"])
            if plus:
                one["v"] = b2 * one["v"] + (1 - b2) * g * g
                n = n / ((one["v"] / (1 - b2 ** one["t"])).sqrt() + 1e-8)
            p = tensors[Key(site, role)]
            p.data -= lr * (n + wd * p.data)
        trajectory.append(products(tensors))
    return trajectory


@pytest.mark.parametrize("phases", [IN_TURN, IN_TURN[::-1]])
@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("plus", [False, True])
def test_it_is_the_papers_algorithm(plus, zero, phases):
    numbers = {"lr": 0.05, "wd": 0.1, "damping": 1e-3}
    expected = papers_products(pairs(zero=zero), 12, phases, plus=plus, **numbers)
    tensors = pairs(zero=zero)
    alt = AltLoRAConfig(
        lr=9.0,
        scale=SCALE,
        weight_decay=0.1,
        damping=1e-3,
        square=0.95 if plus else None,
    )
    ours = train(alt.build(tensors, 0.05), tensors, 12, phases)
    assert difference(ours, expected) < 1e-8
    other = papers_products(pairs(zero=zero), 12, phases, plus=not plus, **numbers)
    assert difference(other, expected) > 1e-3


def test_without_momentum_w_moves_by_projections_of_its_gradient():
    tensors = pairs()
    alt = AltLoRAConfig(lr=0.1, scale=SCALE, momentum=0.0, damping=0.0)
    optimizer = alt.build(tensors, 0.1)
    for role in (Role.B, Role.A, Role.B):
        before = products(tensors)
        other = {s: tensors[Key(s, Role.A if role is Role.B else Role.B)].detach() for s in SHAPES}
        (after,) = train(optimizer, tensors, 1, ((role,),))
        for site in SHAPES:
            g, o = whole_gradient(site, before[site]), other[site]
            p = torch.linalg.pinv(o)
            along = g @ p @ o if role is Role.B else o @ p @ g
            moved = SCALE * (after[site] - before[site])
            torch.testing.assert_close(moved, -0.1 * along, rtol=1e-8, atol=1e-10)


def test_damping_bounds_what_noise_is_multiplied_by():
    """B of about 1e-4: without damping, A would be thrown away."""
    longest = {}
    for damping in (0.0, 1e-2):
        tensors = pairs()
        alt = AltLoRAConfig(lr=1.0, scale=1.0, momentum=0.0, damping=damping)
        for key, p in tensors.items():
            if key.role is Role.B:
                p.data.mul_(1e-4)
            else:
                p.grad = random(3, *p.shape)
        before = {k: p.detach().clone() for k, p in tensors.items()}
        alt.build(tensors, 1.0).step()
        longest[damping] = max(
            float((p.detach() - before[k]).abs().max()) for k, p in tensors.items()
        )
    assert longest[0.0] > 1e6
    assert longest[1e-2] < 1e3


@pytest.mark.parametrize("plus", [False, True])
def test_heads_are_moved_in_every_step(plus):
    tensors = pairs() | {HEAD: nn.Parameter(random(5, 3, 4))}
    theirs = nn.Parameter(tensors[HEAD].detach().clone())
    alt = AltLoRAConfig(
        lr=0.1,
        scale=SCALE,
        momentum=0.9 if plus else 0.0,
        square=0.999 if plus else None,
    )
    plain = AdamW(lr=0.1) if plus else SGD(lr=0.1)
    ours, alone = alt.build(tensors, 0.1), plain.build({HEAD: theirs}, 0.1)
    for i in range(4):
        for key, p in tensors.items():
            trains = key.role in {Role.HEAD, *IN_TURN[i % 2]}
            p.grad = random(i, *p.shape) if trains else None
        theirs.grad = random(i, 3, 4)
        ours.step()
        alone.step()
        torch.testing.assert_close(tensors[HEAD], theirs)


def test_negative_damping_is_refused():
    with pytest.raises(ValueError, match=r"damping: must not be negative"):
        AltLoRAConfig(lr=0.1, scale=1.0, damping=-1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_direction_that_is_nothing_but_rounding_is_not_divided_by(dtype):
    """Where columns of B are parallel, as far as its own type can tell, A stays."""
    tensors = {k: nn.Parameter(p.detach().to(dtype)) for k, p in pairs().items()}
    alt = AltLoRAConfig(lr=1.0, scale=1.0, momentum=0.0, damping=0.0)
    for key, p in tensors.items():
        if key.role is Role.B:
            p.data[:, 0] = 0.7 * p.data[:, 1] - 0.3 * p.data[:, 2]
        else:
            p.grad = random(3, *p.shape).to(dtype)
    before = {k: p.detach().clone() for k, p in tensors.items()}
    alt.build(tensors, 1.0).step()
    assert max(float((p.detach() - before[k]).abs().max()) for k, p in tensors.items()) < 1e3
