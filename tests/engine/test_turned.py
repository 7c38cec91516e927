"""Pairs that are turned before they are sent: Procrustes, by scipy and the authors' formula."""

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes, polar

from silotune.adapters import Projection
from silotune.core import Factors, Key, Role, Turn
from silotune.core.round_plan import plan_of
from silotune.engine.turned import turned
from silotune.methods import FedRotLoRA, IncompatibleMethodError
from silotune.methods.axes import refuse_by_step
from silotune.optim import SGD

A, B = Key("q", Role.A), Key("q", Role.B)


def pair(seed, rank=3, out=7, into=5):
    g = torch.Generator().manual_seed(seed)
    made = {A: torch.randn(rank, into, generator=g), B: torch.randn(out, rank, generator=g)}
    return Factors({key: t.double() for key, t in made.items()})


def arrays(factors):
    return factors[B].numpy(), factors[A].numpy()


@pytest.mark.parametrize("towards", [Role.A, Role.B])
def test_it_is_the_nearest_basis_of_the_same_product(towards):
    """min |Q^T A - A_0| is scipy's min |A^T Q - A_0^T|, and min |B Q - B_0| its own."""
    update, start = pair(1), pair(2)
    b, a = arrays(update)
    b0, a0 = arrays(start)
    q, _ = orthogonal_procrustes(*((a.T, a0.T) if towards is Role.A else (b, b0)))
    found = turned(update, start, Turn(towards))
    np.testing.assert_allclose(found[B].numpy(), b @ q, atol=1e-12)
    np.testing.assert_allclose(found[A].numpy(), q.T @ a, atol=1e-12)
    np.testing.assert_allclose(found.pair("q").dense().numpy(), b @ a, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_part_of_the_way_is_the_rotation_nearest_to_the_mixture(seed):
    update, start = pair(seed), pair(seed + 10)
    b, a = arrays(update)
    u, _, v = np.linalg.svd(a @ arrays(start)[1].T)
    proper = u @ np.diag([1.0, 1.0, np.linalg.det(u @ v)]) @ v
    q, _ = polar(0.7 * np.eye(3) + 0.3 * proper)
    found = turned(update, start, Turn(Role.A, 0.3))
    np.testing.assert_allclose(found[B].numpy(), b @ q, atol=1e-12)
    np.testing.assert_allclose(found[A].numpy(), q.T @ a, atol=1e-12)
    assert np.linalg.det(q) == pytest.approx(1.0)


def test_clients_that_learned_alike_are_averaged_without_error():
    """Whatever basis each wrote it in, reflections included."""
    start, learned = pair(1), pair(2)
    b, a = (t for t in (learned[B], learned[A]))
    sent = []
    for seed in range(4):
        g = torch.Generator().manual_seed(seed)
        q, _ = torch.linalg.qr(torch.randn(3, 3, generator=g).double())
        sent.append(turned(Factors({B: b @ q, A: q.T @ a}), start, Turn(Role.A)))
    assert len({float(torch.linalg.det(x[A][:, :3]).sign()) for x in sent}) == 1
    mean_b, mean_a = (sum(x[key] for x in sent) / 4 for key in (B, A))
    torch.testing.assert_close(mean_b @ mean_a, b @ a)


def test_where_the_start_says_nothing_a_pair_stays_as_it_is():
    update, start = pair(1), pair(2)
    still = start.updated({B: torch.zeros_like(start[B])})
    found = turned(update, still, Turn(Role.B))
    assert all(torch.equal(found[key], update[key]) for key in update)


def test_a_decides_in_odd_rounds_and_b_in_even_ones_but_the_first():
    schedule = FedRotLoRA(rotation_lambda=0.5).schedule(head=False)
    turns = [schedule.plan(round).turn for round in range(4)]
    assert turns == [None, Turn(Role.A, 0.5), Turn(Role.B, 0.5), Turn(Role.A, 0.5)]
    for plan in schedule.plans():
        assert plan_of(plan.outline()) == plan


@pytest.mark.parametrize("wrong", [(Role.D, 1.0), (Role.A, 0.0), (Role.B, 1.5)])
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match=r"turn|rotation_lambda"):
        Turn(*wrong)


def test_only_whole_pairs_are_turned():
    method = FedRotLoRA()
    axes = method.axes(SGD(lr=0.1), head=True)
    with pytest.raises(IncompatibleMethodError, match="may be turned"):
        method.with_(adapter=Projection()).axes(SGD(lr=0.1), head=True)
    assert axes.aggregator.keeps_basis
    with pytest.raises(IncompatibleMethodError, match="turned before it is sent"):
        refuse_by_step(axes, "none")
