"""LoRA-FAIR: both of its objectives have the minimum that a general minimiser finds, dense.

The paper's is 1 - cos(E[BA], B'A') + lambda |B' - E[B]|, in units of B: what it does depends on how
large B is, and it must do that at every size.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covering import every_combination
from silotune.aggregation import FairCosine, FairRidge, Mean, aggregation_error
from silotune.aggregation.fair_minimum import root
from silotune.core import ClientMean, Factors, GlobalState, Key, Role, Statistics
from silotune.linalg import dense

A, B = Key("q", Role.A), Key("q", Role.B)
SHAPES = [(7, 5, 2), (5, 9, 3), (40, 24, 4)]  # out, in, rank
SIZES = [0.0007, 0.02, 0.2, 0.7, 5.0]  # rms of B; the first and the fourth were fragile

every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
every_size = pytest.mark.parametrize("size", SIZES)
either_norm = pytest.mark.parametrize("squared", [False, True])
few = settings(max_examples=6)
seeds = st.integers(0, 10_000)


def a_round(shape, size: float, seed: int, *, drift: float = 0.5, condition: float = 1.0):
    """A state, and the means over three silos that drifted from a common pair."""
    out, into, rank = shape
    g = torch.Generator().manual_seed(seed)
    scales = torch.logspace(0.0, -math.log10(condition), rank).unsqueeze(1)
    common_a = torch.randn(rank, into, generator=g) * scales
    common_b = torch.randn(out, rank, generator=g)
    updates = []
    for _ in range(3):
        a = common_a + drift * scales * torch.randn(rank, into, generator=g)
        b = size * (common_b + drift * torch.randn(out, rank, generator=g))
        updates.append(Factors({A: a, B: b}))
    parts = [Statistics.of(u, w) for u, w in zip(updates, (9.0, 14.0, 23.0), strict=True)]
    return GlobalState(round=0, factors=updates[0]), (parts[0] + parts[1] + parts[2]).mean()


def told(mean: ClientMean) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """E[B], E[A] and E[BA], dense."""
    return mean.first[B].numpy(), mean.first[A].numpy(), dense(mean.product["q"]).numpy()


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    return float((x * y).sum() / np.linalg.norm(x) / np.linalg.norm(y))


def objective(mean: ClientMean, corrected: np.ndarray, rule: FairCosine) -> float:
    b, a, ideal = told(mean)
    moved = np.linalg.norm(corrected - b)
    return 1.0 - cosine(ideal, corrected @ a) + rule.strength * moved ** (1 + rule.squared)


def descended(mean: ClientMean, rule: FairCosine, start: np.ndarray) -> float:
    """The objective's value where a general minimiser ends."""
    b, a, ideal = (torch.from_numpy(t) for t in told(mean))
    unit = b.norm()
    d = ((torch.from_numpy(start) - b) / unit + 1e-9).requires_grad_()
    lbfgs = torch.optim.LBFGS(
        [d], max_iter=300, tolerance_grad=1e-13, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        lbfgs.zero_grad()
        angle = torch.nn.functional.cosine_similarity
        moved = unit * d.norm()
        away = 1.0 - angle(((b + unit * d) @ a).flatten(), ideal.flatten(), dim=0)
        value = away + rule.strength * (moved.square() if rule.squared else moved)
        value.backward()
        return value.detach()

    lbfgs.step(loss)
    return float(loss())


@every_combination(shape=SHAPES, size=SIZES, squared=[False, True], condition=[1.0, 100.0])
def test_no_minimiser_finds_less_than_the_corrected_b(shape, size, squared, condition):
    state, mean = a_round(shape, size, seed=len(SHAPES), condition=condition)
    rule = FairCosine(squared=squared)
    corrected = rule.combine(state, mean).factors[B].numpy()
    reached = objective(mean, corrected, rule)
    b, a, ideal = told(mean)
    projected = ideal @ np.linalg.pinv(a)
    for start in (b, corrected, projected * np.linalg.norm(b) / np.linalg.norm(projected)):
        assert reached <= descended(mean, rule, start) + 1e-9
    assert reached <= objective(mean, b, rule)


@every_combination(shape=SHAPES, size=SIZES, squared=[False, True], drift=[0.5, 0.01])
def test_last_digits_of_what_clients_send_are_last_digits_of_the_corrected_b(
    shape, size, squared, drift
):
    """Looked for by its value, a minimum is known to half the digits; by its slope, to all."""
    state, mean = a_round(shape, size, seed=6, drift=drift)
    g = torch.Generator().manual_seed(7)
    noise = 1.0 + 1e-15 * torch.randn(mean.first[B].shape, generator=g)
    shaken = ClientMean(first=mean.first.updated({B: mean.first[B] * noise}), product=mean.product)
    rule = FairCosine(squared=squared)
    one, two = (rule.combine(state, m).factors[B] for m in (mean, shaken))
    assert (one - two).norm() < 1e-12 * one.norm()


@pytest.mark.parametrize(
    ("function", "low", "high", "zero"),
    [
        (lambda x: np.tanh(x - 3.3), -40.0, 60.0, 3.3),
        (lambda x: np.exp(x) - 7.0, -40.0, 40.0, math.log(7.0)),
        (lambda x: np.log(2.0 / (1e-3 + np.exp(x))), -30.0, 3.0, math.log(1.999)),
        (lambda x: np.sign(x - 1.25) * 1e200, 0.0, 5.0, 1.25),
        (lambda x: (x - 2.0) ** 3, -1.0, 40.0, 2.0),
    ],
)
def test_a_root_is_found_however_the_function_bends(function, low, high, zero):
    asked = []

    def counted(x):
        asked.append(float(x[0]))
        return function(x)

    assert root(counted, low, high) == pytest.approx(zero, abs=1e-12)
    assert len(asked) < 150
    assert all(low <= x <= high for x in asked)


@every_shape
@few
@given(seed=seeds, size=st.floats(1e-6, 1e3), strength=st.sampled_from([0.0, 1e-4, 0.01, 1.0]))
def test_only_the_product_of_lambda_and_the_size_of_b_counts(shape, seed, size, strength):
    """(c B, lambda / c) has the minimiser c B' of (B, lambda)."""
    state, mean = a_round(shape, 1.0, seed)
    large, grown = a_round(shape, size, seed)
    one = FairCosine(strength=strength).combine(state, mean).factors[B].numpy()
    two = FairCosine(strength=strength / size).combine(large, grown).factors[B].numpy()
    np.testing.assert_allclose(two / size, one, atol=1e-11 * np.abs(one).max())


@either_norm
@every_size
@every_shape
def test_at_no_size_of_b_does_the_product_run_away(shape, size, squared):
    """By gradient steps in units of B, B'A' came to 40 times the mean product at the smallest."""
    for seed in range(5):
        state, mean = a_round(shape, size, seed)
        corrected = FairCosine(squared=squared).combine(state, mean).factors[B].numpy()
        b, a, ideal = told(mean)
        assert np.linalg.norm(corrected) <= np.linalg.norm(b) * (1 + 1e-9)
        assert 0.3 < np.linalg.norm(corrected @ a) / np.linalg.norm(b @ a) < 1.5
        assert cosine(ideal, corrected @ a) >= cosine(ideal, b @ a) - 1e-12


@every_shape
def test_a_small_b_is_turned_to_the_projection_and_a_large_one_stays(shape):
    """What the paper's lambda of 0.01 comes to: it is not relative to B."""
    kept = []
    for size in (1e-5, 100.0):
        state, mean = a_round(shape, size, seed=1)
        b, a, ideal = told(mean)
        corrected = FairCosine().combine(state, mean).factors[B].numpy()
        best = cosine(ideal, ideal @ np.linalg.pinv(a) @ a)
        gained = cosine(ideal, corrected @ a) - cosine(ideal, b @ a)
        kept.append(gained / (best - cosine(ideal, b @ a)))
    assert kept[0] > 0.999
    assert kept[1] == 0.0


def test_the_squared_norm_moves_a_little_where_the_norm_does_not_move_at_all():
    state, mean = a_round((40, 24, 4), 5.0, seed=2)
    b = mean.first[B]
    assert torch.equal(FairCosine().combine(state, mean).factors[B], b)
    moved = (FairCosine(squared=True).combine(state, mean).factors[B] - b).norm()
    assert 0.0 < moved < 0.1 * b.norm()


def test_silos_that_contradict_each_other_leave_a_pair_that_can_learn():
    """Where the mean product has the wrong sign, its minimiser would be no B at all."""
    state, mean = a_round((7, 5, 2), 1.0, seed=3)
    turned = ClientMean(first=mean.first, product={"q": mean.product["q"] * -1.0})
    for strength in (0.0, 1e-4, 0.01, 1.0):
        after = FairCosine(strength=strength).combine(state, turned).factors[B]
        assert after.isfinite().all()
        assert after.norm() > 0.05 * mean.first[B].norm()


@either_norm
def test_clients_that_agree_leave_their_b_as_it_is(squared):
    """There is nothing to correct, to the last digit, so the derivative is that of rounding."""
    for shape in [(4, 3, 1), *SHAPES]:
        state, mean = a_round(shape, 1.0, seed=8, drift=0.0)
        after = FairCosine(squared=squared).combine(state, mean).factors[B]
        torch.testing.assert_close(after, mean.first[B], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rank", [1, 2])
def test_rows_of_a_that_say_the_same_do_no_harm(rank):
    """A' of rank 1 has a G that cannot be inverted."""
    state, mean = a_round((7, 5, 2), 1.0, seed=4)
    a = mean.first[A].clone()
    a[rank - 1 :] = a[:1] * 0.5
    common = [Factors({A: a, B: mean.first[B] + c}) for c in (0.0, 1.0)]
    mean = (Statistics.of(common[0], 1.0) + Statistics.of(common[1], 1.0)).mean()
    for rule in (FairCosine(), FairCosine(strength=0.0), FairRidge(), FairRidge(ridge=0.0)):
        after = rule.combine(state, mean).factors
        assert after[B].isfinite().all()
        expected = dense(mean.product["q"])
        torch.testing.assert_close(after[B] @ after[A], expected, rtol=1e-7, atol=1e-7)


# --- the squared error ----------------------------------------------------------------------------


@every_shape
@few
@given(seed=seeds, ridge=st.sampled_from([1e-3, 0.3, 10.0]))
def test_the_ridge_is_in_units_of_the_gram_matrix(shape, seed, ridge):
    state, mean = a_round(shape, 0.2, seed)
    b, a, ideal = told(mean)
    gram, rank = a @ a.T, shape[2]
    weight = ridge * np.trace(gram) / rank * np.eye(rank)
    d = (ideal - b @ a) @ a.T @ np.linalg.inv(gram + weight)
    factors = FairRidge(ridge=ridge).combine(state, mean).factors
    np.testing.assert_allclose(factors[B].numpy(), b + d, atol=1e-10)
    np.testing.assert_allclose(factors[A].numpy(), a, atol=1e-12)


@every_size
def test_a_hundredth_keeps_nearly_all_of_the_correction_at_every_size_of_b(size):
    """Why it is not called lambda: at the paper's 0.01 this is the setting without a penalty."""
    state, mean = a_round((40, 24, 4), size, seed=5)
    b = mean.first[B]
    whole, kept = (
        (FairRidge(ridge=ridge).combine(state, mean).factors[B] - b).norm() for ridge in (0.0, 0.01)
    )
    assert 0.97 < kept / whole < 1.0


@every_shape
@few
@given(seed=seeds, ridge=st.sampled_from([0.0, 0.01, 1.0]))
def test_it_is_nowhere_worse_than_the_mean(shape, seed, ridge):
    state, mean = a_round(shape, 0.2, seed)
    errors = [
        aggregation_error(mean, state.factors, rule.combine(state, mean))
        for rule in (FairRidge(ridge=ridge), Mean())
    ]
    assert errors[0] <= errors[1] + 1e-12
