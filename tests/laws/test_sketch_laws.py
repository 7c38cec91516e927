"""FedASK's rule against its formula in numpy: two sketches of E[BA], and what they leave out."""

import numpy as np
import pytest
import torch

from silotune.aggregation import Sketch
from silotune.core import ClientMean, Factors, GlobalState, Key, Role, Statistics, generator

A, B = Key("q", Role.A), Key("q", Role.B)
RANK, WEIGHTS = 3, (1.0, 2.0, 5.0)
SHAPES = [(12, 9), (9, 12)]


def drawn(shape, rank, seed):
    g = torch.Generator().manual_seed(seed)
    out, into = shape
    return Factors(
        {A: torch.randn(rank, into, generator=g), B: torch.randn(out, rank, generator=g)}
    )


def a_round(shape, roles, rank=RANK):
    state = GlobalState(round=0, factors=drawn(shape, rank, 0))
    updates = [drawn(shape, rank, seed).only(roles) for seed in (1, 2, 3)]
    total = None
    for update, weight in zip(updates, WEIGHTS, strict=True):
        part = Statistics.of(update, weight)
        total = part if total is None else total + part
    return state, updates, total.mean()


def ideal(state, updates):
    whole = [state.factors.updated(update) for update in updates]
    share = np.array(WEIGHTS) / sum(WEIGHTS)
    pairs = [(x[B].double().numpy(), x[A].double().numpy()) for x in whole]
    return sum(w * b @ a for w, (b, a) in zip(share, pairs, strict=True))


def made(state: GlobalState, mean: ClientMean, rule: Sketch):
    factors = rule.combine(state, mean).factors
    return factors[B].double().numpy(), factors[A].double().numpy()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("oversampling", [0, 2])
def test_it_is_the_papers_two_sketches(shape, oversampling):
    """Y = M Om, Q R = Y, Z = M^T Q, U S V^T = Z^T; B = Q U S^(1/2), A = S^(1/2) V^T."""
    state, updates, mean = a_round(shape, {Role.A, Role.B})
    rule = Sketch(rank=RANK, oversampling=oversampling, b_alone=False)
    b, a = made(state, mean, rule)
    m, columns = ideal(state, updates), RANK + oversampling
    om = torch.randn(shape[1], columns, generator=generator("fedask", "q"), dtype=torch.float64)
    q, _ = np.linalg.qr(m @ om.numpy())
    u, s, vt = np.linalg.svd((m.T @ q).T, full_matrices=False)
    root = np.sqrt(s[:RANK])
    np.testing.assert_allclose(
        b @ a, (q @ u[:, :RANK] * root) @ (root[:, None] * vt[:RANK]), atol=1e-5
    )
    np.testing.assert_allclose(b.T @ b, a @ a.T, atol=1e-5)  # split evenly
    np.testing.assert_allclose(np.diag(b.T @ b), s[:RANK], rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_where_only_b_moves_nothing_is_lost_and_both_factors_move(shape):
    state, updates, mean = a_round(shape, {Role.B})
    b, a = made(state, mean, Sketch(rank=RANK))
    np.testing.assert_allclose(b @ a, ideal(state, updates), atol=1e-5)
    assert np.abs(a - state.factors[A].numpy()).max() > 0.1


def test_a_wide_sketch_comes_close_to_the_best_of_its_rank():
    state, updates, mean = a_round((12, 9), {Role.A, Role.B})
    m = ideal(state, updates)
    best = float(np.linalg.norm(np.linalg.svd(m, compute_uv=False)[RANK:]))
    errors = [
        float(
            np.linalg.norm(
                m - np.matmul(*made(state, mean, Sketch(rank=RANK, oversampling=p, b_alone=False)))
            )
        )
        for p in (0, 6)
    ]
    assert errors[1] == pytest.approx(best, rel=1e-4)
    assert best < errors[0]


def test_components_that_nothing_needs_keep_their_rows_of_a():
    """A mean product of lower rank: B is 0 where A stays as it was, and may move again."""
    state, updates, _ = a_round((12, 9), {Role.B})
    thin = Factors({B: updates[0][B] * torch.tensor([1.0, 0.0, 0.0])})
    b, a = made(state, Statistics.of(thin, 1.0).mean(), Sketch(rank=RANK))
    np.testing.assert_allclose(b @ a, ideal(state, [thin] * 3), atol=1e-5)
    assert not b[:, 1:].any()
    np.testing.assert_array_equal(a[1:], state.factors[A][1:].numpy())


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"rank": 2, "oversampling": -1}])
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match=r"^(r|oversampling): "):
        Sketch(**wrong)


def test_a_trained_a_is_refused_where_only_b_was_to_move():
    state, _, mean = a_round((12, 9), {Role.A, Role.B})
    with pytest.raises(ValueError, match="only B moved"):
        Sketch(rank=RANK).combine(state, mean)
