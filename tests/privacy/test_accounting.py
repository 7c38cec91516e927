"""Epsilon against published tables, closed forms and a second accountant."""

import math

import dp_accounting as dp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silotune.privacy.accounting import (
    COARSE,
    Charge,
    calibrate,
    epsilon,
    epsilon_by_round,
    event,
)

DELTA = 1e-5

# q = 0.01: (steps, epsilon, sigma at grid 1e-3, sigma at grid 1e-4)
PUBLISHED = [
    (1000, 1, 1.4158, 1.4146),
    (1000, 3, 0.8136, 0.8136),
    (1000, 6, 0.6425, 0.6425),
    (3000, 1, 2.1954, 2.1888),
    (3000, 3, 1.0333, 1.0330),
    (3000, 6, 0.7596, 0.7596),
    (10000, 1, 3.8559, 3.8132),
    (10000, 3, 1.5671, 1.5651),
    (10000, 6, 1.0167, 1.0164),
]

# FFA-LoRA on GLUE, three equal shards, 10,000 steps, grid 1e-3: (q, epsilon, sigma)
PAPER = [
    (0.00153, [(6, 0.522), (3, 0.622), (1, 0.876)]),
    (0.00891, [(6, 0.949), (3, 1.430), (1, 3.452)]),
    (0.00165, [(6, 0.530), (3, 0.632), (1, 0.911)]),
    (0.00573, [(6, 0.762), (3, 1.048), (1, 2.288)]),
]
PAPER_ROWS = [(q, target, sigma) for q, row in PAPER for target, sigma in row]

mechanisms = st.builds(
    Charge,
    sampling_rate=st.floats(0.05, 1.0),
    noise_multiplier=st.floats(1.5, 8.0),
    steps=st.integers(1, 200),
)


def assert_sigma(sigma, target, q, steps, tolerance, grid):
    """The sigma that costs ``target`` lies within ``tolerance`` of ``sigma``."""

    def cost(s):
        return epsilon([Charge(q, s, steps)], DELTA, grid=grid)

    assert cost(sigma * (1 + tolerance)) < target < cost(sigma * (1 - tolerance))


@pytest.mark.parametrize(("steps", "target", "coarse", "fine"), PUBLISHED)
def test_published_sigma_on_the_coarse_grid(steps, target, coarse, fine):
    assert_sigma(coarse, target, 0.01, steps, 0.002, COARSE)


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "target", "coarse", "fine"), PUBLISHED)
def test_published_sigma_on_the_fine_grid(steps, target, coarse, fine):
    assert_sigma(fine, target, 0.01, steps, 0.002, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("q", "target", "sigma"), PAPER_ROWS)
def test_sigma_of_the_papers_setting(q, target, sigma):
    assert_sigma(sigma, target, q, 10_000, 0.005, COARSE)


@pytest.mark.parametrize(("sigma", "steps"), [(1.0, 1), (4.0, 50), (20.0, 3)])
@pytest.mark.parametrize("delta", [1e-5, 1e-9])
def test_full_batches_are_plain_gaussians(sigma, steps, delta):
    exact = dp.get_epsilon_gaussian(sigma / math.sqrt(steps), delta)
    upper = epsilon([Charge(1.0, sigma, steps)], delta)
    assert exact <= upper <= exact * 1.0005 + 1e-4


@pytest.mark.parametrize(("target", "q", "steps"), [(6, 0.1, 200), (0.5, 0.2, 30), (2, 1.0, 10)])
def test_calibrate_inverts_epsilon(target, q, steps):
    sigma = calibrate(target, DELTA, q, steps)
    assert 0.997 * target <= epsilon([Charge(q, sigma, steps)], DELTA) <= target
    assert epsilon([Charge(q, sigma * 0.995, steps)], DELTA) > target


def test_calibrate_leaves_the_coarse_grid_where_it_wastes_noise():
    coarse = 0.1 * (1 - 1e-6)
    sigma = calibrate(0.1, DELTA, 0.5, 100)
    assert epsilon([Charge(0.5, sigma, 100)], DELTA, grid=COARSE) > coarse
    assert 0.0995 <= epsilon([Charge(0.5, sigma, 100)], DELTA) <= 0.1


@settings(max_examples=3, deadline=None)
@given(st.floats(0.3, 2.0), st.floats(0.02, 0.5), st.integers(10, 100))
def test_calibrated_sigma_is_certified_and_monotone(target, q, steps):
    sigma = calibrate(target, DELTA, q, steps)
    assert epsilon([Charge(q, sigma, steps)], DELTA) <= target
    assert calibrate(target * 1.1, DELTA, q, steps) < sigma < calibrate(target, DELTA, q, 2 * steps)


@settings(max_examples=6, deadline=None)
@given(mechanisms)
def test_epsilon_is_monotone(charge):
    q, sigma, steps = charge.sampling_rate, charge.noise_multiplier, charge.steps

    def cost(q=q, sigma=sigma, steps=steps, delta=DELTA):
        return epsilon([Charge(q, sigma, steps)], delta, grid=COARSE)

    assert cost(steps=steps + 10) >= cost()
    assert cost(sigma=sigma * 1.1) <= cost()
    assert cost(q=q * 0.9) <= cost()
    assert cost(delta=DELTA * 10) <= cost()
    assert cost() >= epsilon([charge], DELTA, grid=COARSE / 2) >= 0.0  # a finer grid is tighter


@settings(max_examples=6, deadline=None)
@given(st.lists(mechanisms, min_size=1, max_size=2))
def test_renyi_accounting_is_never_below(charges):
    renyi = dp.rdp.RdpAccountant().compose(event(charges)).get_epsilon(DELTA)
    assert epsilon(charges, DELTA, grid=COARSE) <= renyi


def test_renyi_accounting_is_not_far_above():
    charges = [Charge(0.01, 1.0, 1000)]
    renyi = dp.rdp.RdpAccountant().compose(event(charges)).get_epsilon(DELTA)
    assert renyi == pytest.approx(2.10, abs=0.01)
    assert epsilon(charges, DELTA, grid=COARSE) == pytest.approx(1.828, abs=0.002)


def test_the_event_says_what_epsilon_composes():
    charges = [Charge(0.1, 2.0, 30), Charge(0.2, 3.0, 10), Charge(1.0, 9.0, 4)]
    theirs = dp.pld.PLDAccountant(value_discretization_interval=COARSE).compose(event(charges))
    assert epsilon(charges, DELTA, grid=COARSE) == pytest.approx(
        theirs.get_epsilon(DELTA), rel=1e-6
    )


def test_order_and_pieces_do_not_matter():
    parts = [Charge(0.1, 2.0, 10), Charge(0.3, 5.0, 7), Charge(0.1, 2.0, 20), Charge(0.2, 3.0, 0)]
    whole = [Charge(0.3, 5.0, 7), Charge(0.1, 2.0, 30)]
    assert epsilon(parts, DELTA) == epsilon(parts[::-1], DELTA) == epsilon(whole, DELTA)
    assert event(parts) == event(whole)


def test_nothing_done_costs_nothing_and_no_noise_costs_everything():
    assert epsilon([], DELTA) == 0.0
    assert epsilon([Charge(0.5, 1.0, 0), Charge(0.5, 0.0, 0)], DELTA) == 0.0
    assert epsilon([Charge(0.5, 10.0, 5), Charge(0.5, 0.0, 1)], DELTA) == math.inf
    assert epsilon([Charge(0.5, 1e-200, 1)], DELTA) == math.inf


def test_hardly_any_noise_is_answered_in_reasonable_time_and_memory():
    exact = dp.get_epsilon_gaussian(0.05 / math.sqrt(100), DELTA)
    assert epsilon([Charge(1.0, 0.05, 100)], DELTA) == pytest.approx(exact, rel=1e-4)
    assert 5000 < epsilon([Charge(0.9, 0.5, 10_000)], DELTA) < 20_000


def test_epsilon_by_round_is_epsilon_of_each_prefix():
    rounds = epsilon_by_round(0.1, 2.0, 5, 6, DELTA)
    apart = [epsilon([Charge(0.1, 2.0, 5 * (r + 1))], DELTA, grid=COARSE) for r in range(6)]
    assert rounds == pytest.approx(apart, rel=1e-6)
    assert rounds == sorted(rounds)
    assert epsilon_by_round(0.1, 0.0, 5, 2, DELTA) == [math.inf, math.inf]
    assert epsilon_by_round(0.1, 2.0, 0, 2, DELTA) == [0.0, 0.0]
    assert epsilon_by_round(0.1, 2.0, 5, 0, DELTA) == []


@pytest.mark.parametrize(
    ("call", "key"),
    [
        (lambda: Charge(0.0, 1.0, 1), "train.batch_size"),
        (lambda: Charge(1.5, 1.0, 1), "train.batch_size"),
        (lambda: Charge(math.nan, 1.0, 1), "train.batch_size"),
        (lambda: Charge(0.5, -1.0, 1), "privacy.noise_multiplier"),
        (lambda: Charge(0.5, math.inf, 1), "privacy.noise_multiplier"),
        (lambda: Charge(0.5, 1.0, -1), "steps"),
        (lambda: epsilon([], 0.0), "privacy.target_delta"),
        (lambda: epsilon([], 1.0), "privacy.target_delta"),
        (lambda: calibrate(0.0, DELTA, 0.1, 10), "privacy.target_epsilon"),
        (lambda: calibrate(math.inf, DELTA, 0.1, 10), "privacy.target_epsilon"),
        (lambda: calibrate(1.0, 0.0, 0.1, 10), "privacy.target_delta"),
        (lambda: calibrate(1.0, DELTA, 2.0, 10), "train.batch_size"),
        (lambda: calibrate(1e-5, DELTA, 1.0, 10_000), "privacy.target_epsilon.*raise it"),
        (lambda: epsilon_by_round(0.1, 1.0, 1, -1, DELTA), "train.num_rounds"),
    ],
)
def test_errors_name_the_key(call, key):
    with pytest.raises(ValueError, match=key):
        call()
