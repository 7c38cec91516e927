"""Renyi divergences against exact sums, another accountant, and the loss distributions."""

import math

import dp_accounting as dp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covering import every_combination, examples
from silotune.privacy.accounting import rdp
from silotune.privacy.accounting.accountant import COARSE, epsilon, epsilon_rdp
from silotune.privacy.accounting.charges import Charge, CorrelatedCharge, TruncatedCharge

DELTA = 1e-5

plain = st.builds(
    Charge,
    sampling_rate=st.floats(1e-4, 0.999) | st.just(1.0),
    noise_multiplier=st.floats(0.6, 30.0),
    steps=st.integers(1, 5000),
)
streams = st.builds(
    CorrelatedCharge,
    noise_multiplier=st.floats(0.5, 8.0),
    steps=st.integers(1, 100),
    bands=st.integers(1, 8),
    separation=st.integers(1, 8),
)


@every_combination(q=[1e-4, 0.01, 0.3, 0.9], sigma=[0.3, 1.0, 20.0])
def test_another_accountant_agrees_at_whole_orders(q, sigma):
    theirs = dp.rdp.RdpAccountant(rdp.ORDERS.tolist())
    theirs.compose(dp.PoissonSampledDpEvent(q, dp.GaussianDpEvent(sigma)), 500)
    assert epsilon_rdp([Charge(q, sigma, 500)], DELTA) == pytest.approx(
        theirs.get_epsilon(DELTA), rel=1e-6
    )


@pytest.mark.parametrize("q", [0.01, 0.3, 0.8])
@pytest.mark.parametrize(("std", "moved"), [(2.0, 1), (3.0, 2), (8.0, 8), (0.7, 1)])
def test_discrete_noise_costs_what_the_sum_says_in_one_direction_and_less_in_the_other(
    q, std, moved
):
    x = np.arange(-1000, 1001)

    def around(v):
        log = -((x - v) ** 2) / (2 * std**2)
        return log - np.logaddexp.reduce(log)

    without = around(0)
    with_record = np.logaddexp(math.log1p(-q) + without, math.log(q) + around(moved))

    def divergence(p, r, order):
        return np.logaddexp.reduce(order * p + (1 - order) * r) / (order - 1)

    curve = rdp.subsampled(q, std / moved)
    for order, formula in zip(rdp.ORDERS[:20], curve[:20], strict=True):
        assert divergence(with_record, without, order) == pytest.approx(formula, rel=1e-8)
        assert divergence(without, with_record, order) <= formula * (1 + 1e-9)


def test_tiny_divergences_keep_their_digits():
    q, sigma = 1e-6, 500.0
    assert rdp.subsampled(q, sigma)[0] == pytest.approx(q**2 / sigma**2, rel=1e-5)


def test_epsilon_of_one_gaussian():
    sigma = 3.0
    found = rdp.to_epsilon(rdp.gaussian(sigma), DELTA)
    exact = dp.get_epsilon_gaussian(sigma, DELTA)
    assert exact < found < 1.1 * exact
    assert 0.0 < rdp.to_epsilon(rdp.gaussian(1e9), DELTA) < 1e-3  # the largest order is finite
    assert rdp.to_epsilon(rdp.gaussian(1e9), 1e-2) == 0.0
    assert rdp.to_epsilon(rdp.unknown(), DELTA) == math.inf


def test_published_epsilon():
    charges = [Charge(0.01, 1.0, 1000)]
    assert epsilon_rdp(charges, DELTA) == pytest.approx(2.10, abs=0.01)
    assert epsilon_rdp([Charge(0.01, 1.5137, 1000)], DELTA) == pytest.approx(1.0, abs=0.002)


# never below the loss distributions


@examples(8, 25)
@given(st.lists(plain | streams, min_size=1, max_size=2), st.sampled_from([1e-3, 1e-5, 1e-8]))
def test_renyi_is_never_below(charges, delta):
    """A coarse grid rounds up, maybe by more than the gap is wide; then the fine one tells."""
    renyi = epsilon_rdp(charges, delta)
    assert renyi >= epsilon(charges, delta, grid=COARSE) or renyi >= epsilon(charges, delta)


@pytest.mark.slow
@pytest.mark.parametrize("q", [0.0001, 0.001, 0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("sigma", [0.6, 1.0, 3.0, 30.0])
@pytest.mark.parametrize("steps", [1, 100, 5000])
def test_renyi_is_never_below_on_the_grid_that_certifies(q, sigma, steps):
    charges = [Charge(q, sigma, steps)]
    assert epsilon_rdp(charges, DELTA) >= epsilon(charges, DELTA)


def test_where_renyi_cannot_say_it_is_infinite():
    truncated = [TruncatedCharge(0.1, 2.0, 10, 30, 90)]
    assert epsilon_rdp(truncated, DELTA, relation="zero-out") == math.inf
    assert epsilon_rdp([Charge(0.1, 2.0, 10)], DELTA, relation="replace-one") == math.inf
    assert epsilon_rdp([Charge(0.1, 0.001, 10)], DELTA) == math.inf
    assert epsilon_rdp([], DELTA) == 0.0


def test_replacing_a_record_without_sampling_is_adding_one_of_twice_the_size():
    for points in (0, 2**20):
        twice = epsilon_rdp([Charge(1.0, 2.0, 10, points)], DELTA, relation="replace-one")
        assert twice == epsilon_rdp([Charge(1.0, 1.0, 10, points)], DELTA)
