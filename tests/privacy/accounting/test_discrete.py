"""Discrete noise is a rounding of continuous noise: the lemma in numbers, and what follows."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from covering import every_combination, full
from silotune.privacy import Discrete
from silotune.privacy.accounting import discrete
from silotune.privacy.accounting.accountant import COARSE, epsilon, epsilon_rdp
from silotune.privacy.accounting.charges import (
    LEAST_GRID_POINTS,
    Charge,
    CorrelatedCharge,
    TruncatedCharge,
    from_json,
    to_json,
)

DELTA = 1e-5
POINTS = Discrete.grid_points


def e(s):
    """2 sum_k exp(-2 pi^2 s^2 k^2)."""
    return 2 * mpmath.nsum(lambda k: mpmath.exp(-2 * (mpmath.pi * s * k) ** 2), [1, mpmath.inf])


def h(s, sigma):
    """What the lemma allows the logarithm of a ratio to be."""
    return e(sigma) - mpmath.log(1 - e(s))


def weight(x, s):
    return mpmath.exp(-(x**2) / (2 * s**2))


def rounded(y, s, tau):
    """The chance of y after rounding N(0, tau^2), by the trapezoidal rule.

    The integrand is analytic in a strip, so that the rule is exact to far more digits than the
    ratios that are compared.
    """
    step, reach = mpmath.mpf(1) / 8, 10 * tau

    def density(z):
        whole = sum(weight(k - z, s) for k in range(int(z) - 11, int(z) + 12))
        return weight(z, tau) * weight(y - z, s) / whole

    count = int(reach / step)
    total = sum(density(step * i) for i in range(-count, count + 1))
    return total * step / (tau * mpmath.sqrt(2 * mpmath.pi))


# the lemma


@every_combination(s=[0.5, 0.6, 0.7, 0.8, 0.9, 1.0], sigma=[1.1, 1.5, 2.5])
def test_rounding_gives_the_discrete_gaussian_but_for_the_factor(s, sigma):
    with mpmath.workdps(30):
        s, sigma = mpmath.mpf(s), mpmath.mpf(sigma)
        tau = mpmath.sqrt(sigma**2 - s**2)
        whole = sum(weight(y, sigma) for y in range(-60, 61))
        logs = [
            mpmath.log(rounded(y, s, tau) / (weight(y, sigma) / whole)) for y in (0, 1, 2, 3, 6)
        ]
        assert max(map(abs, logs)) <= h(s, sigma)
        assert max(map(abs, logs)) > 1e-20, "nothing was compared"


@pytest.mark.parametrize("s", [0.5, 0.7, 1.0])
def test_the_sums_behind_the_factor_are_as_far_from_even_as_said(s):
    """Over the integers, exp(-(k - z)^2 / 2 s^2) adds up to s sqrt(2 pi) (1 +- e(s)), no closer."""
    with mpmath.workdps(30):
        s = mpmath.mpf(s)
        level = s * mpmath.sqrt(2 * mpmath.pi)
        sums = [
            sum(weight(k - mpmath.mpf(z) / 8, s) for k in range(-40, 41)) / level for z in range(8)
        ]
        assert max(sums) == pytest.approx(1 + e(s), rel=1e-15)
        digits = mpmath.mpf("1e-25")
        assert all(abs(total - 1) <= e(s) + digits for total in sums)
        assert abs(1 - min(sums)) >= e(s) * (1 - 10 * e(s) ** 2)


def test_what_all_coordinates_and_steps_make_of_the_factor_is_within_the_slack():
    """A standard deviation that is 1e-14 too small, by floats, still leaves s = 3.99."""
    s = 3.99
    assert POINTS**2 * (1 - 1e-14) ** 2 - s**2 > POINTS**2 - discrete._ROUNDING**2
    with mpmath.workdps(200):
        one = h(s, POINTS)
        assert one < 1e-135
        coordinates, steps = 10**15, 10**12
        assert 2 * steps * coordinates * one < 1e-100 < discrete.SLACK
        coarsest = h(s, LEAST_GRID_POINTS)
        assert 2 * steps * coordinates * coarsest < discrete.SLACK


# hockey sticks of discrete mechanisms, summed point by point


def around(moved, sigma, size):
    x = np.arange(-size, size + 1)
    log = -((x - moved) ** 2) / (2 * sigma**2)
    return np.exp(log - np.logaddexp.reduce(log))


def stick(p, r, eps):
    return float(np.maximum(p - math.exp(eps) * r, 0.0).sum())


def continuous_stick(p, r, eps):
    """Of mixtures ((weight, mean), ...) of N(mean, 1), whose log-ratio grows or falls."""
    x = np.linspace(-12, 12, 48_001)

    def density(mixture):
        return sum(w * norm.pdf(x, mean) for w, mean in mixture)

    return float(np.maximum(density(p) - math.exp(eps) * density(r), 0.0).sum() * (x[1] - x[0]))


@every_combination(
    q=[0.05, 0.5, 1.0],
    grid=[(3.0, 2), (4.0, 4), (6.0, 3)],
    other=[0, -1],
    back=[False, True],
)
def test_no_sampled_step_costs_more_than_its_continuous_noise(q, grid, other, back):
    """Sampling is a mixture, and the factor passes through it, under either relation."""
    sigma, moved = grid
    s = 0.8
    tau = math.sqrt(sigma**2 - s**2)
    factor = float(h(s, sigma))
    p = (1 - q) * around(0, sigma, 80) + q * around(moved, sigma, 80)
    r = (1 - q) * around(0, sigma, 80) + q * around(other * moved, sigma, 80)
    mean = moved / tau
    left = ((1 - q, 0.0), (q, mean))
    right = ((1 - q, 0.0), (q, other * mean))
    if back:
        p, r, left, right = r, p, right, left
    for eps in (0.1, 0.5, 1.0, 2.0):
        allowed = math.exp(factor) * continuous_stick(left, right, eps - 2 * factor)
        assert stick(p, r, eps) <= allowed + 1e-12


def test_nor_do_two_coordinates_or_two_steps_that_depend_on_each_other():
    """Where the second step's record moves further if the first outcome was above zero."""
    sigma, s = 3.0, 0.8
    tau, factor = math.sqrt(sigma**2 - s**2), float(h(s, sigma))
    size = 40
    first = np.arange(-size, size + 1)

    def joint(record):
        rows = [around(record * (2 if y > 0 else 1), sigma, size) for y in first]
        return around(record, sigma, size)[:, None] * np.array(rows)

    for record in (1, 2):
        for eps in (0.2, 0.7, 1.5):
            worst = math.hypot(record, 2 * record) / tau  # adaptive: as if it always moved most
            allowed = continuous_stick(((1.0, worst),), ((1.0, 0.0),), eps - 4 * factor)
            mine = stick(joint(record), joint(0), eps)
            assert mine <= math.exp(2 * factor) * allowed + 1e-12


def test_without_the_smaller_noise_it_would_be_too_cheap():
    """On a coarse grid discrete noise does cost more than continuous noise of the same sigma."""
    sigma, eps = 0.6, 0.2
    mine = stick(around(1, sigma, 40), around(0, sigma, 40), eps)
    same = continuous_stick(((1.0, 1 / sigma),), ((1.0, 0.0),), eps)
    assert mine > 1.1 * same


# what the product makes of it


@given(
    multiplier=st.floats(0.01, 1e4),
    bound=st.floats(1e-6, 1e6),
    exponent=st.integers(-30, 30) | st.none(),
)
def test_as_many_points_are_there_as_are_charged(multiplier, bound, exponent):
    if exponent is not None:  # just beside a power of two
        bound = 2.0**exponent * (1 - 2**-53) / multiplier
    points = multiplier * bound / Discrete(multiplier).grid(bound)
    assert POINTS * (1 - 1e-15) <= points <= 2 * POINTS * (1 + 1e-15)


CHARGES = [
    (Charge(0.02, 1.0, 100), "add-remove"),
    full(Charge(0.02, 1.0, 100), "replace-one"),
    (Charge(1.0, 20.0, 100), "replace-one"),
    full(TruncatedCharge(0.02, 1.0, 100, 60, 1000), "zero-out"),
]


def on_grid(charge, points=POINTS):
    return from_json({**to_json(charge), "grid_points": points})


@pytest.mark.parametrize(("charge", "relation"), CHARGES)
def test_discrete_noise_costs_what_continuous_noise_costs_and_never_less(charge, relation):
    smooth = epsilon([charge], DELTA, relation=relation)
    assert smooth < epsilon([on_grid(charge)], DELTA, relation=relation) <= smooth * (1 + 1e-9)
    coarse = epsilon([on_grid(charge, LEAST_GRID_POINTS)], DELTA, relation=relation)
    assert smooth * (1 + 1e-8) < coarse < smooth * (1 + 1e-4)


@pytest.mark.parametrize(("charge", "relation"), CHARGES)
def test_renyi_is_never_below_where_it_can_say(charge, relation):
    renyi = epsilon_rdp([on_grid(charge)], DELTA, relation=relation)
    assert renyi == epsilon_rdp([charge], DELTA, relation=relation)
    assert renyi >= epsilon([on_grid(charge)], DELTA, relation=relation)


@settings(max_examples=10, deadline=None)
@given(
    st.builds(
        Charge,
        sampling_rate=st.floats(1e-3, 0.999) | st.just(1.0),
        noise_multiplier=st.floats(0.6, 30.0),
        steps=st.integers(1, 3000),
        grid_points=st.just(POINTS),
    )
)
def test_renyi_is_a_second_opinion_on_any_discrete_charge(charge):
    renyi = epsilon_rdp([charge], DELTA)
    assert renyi >= epsilon([charge], DELTA, grid=COARSE) or renyi >= epsilon([charge], DELTA)


def test_discrete_noise_beside_other_noise():
    mixed = [Charge(0.1, 2.0, 10, POINTS), CorrelatedCharge(8.0, 5, 3, 4), Charge(0.2, 3.0, 10)]
    smooth = [Charge(0.1, 2.0, 10), *mixed[1:]]
    assert epsilon(mixed, DELTA) == pytest.approx(epsilon(smooth, DELTA), rel=1e-9)
    assert epsilon([*mixed, Charge(0.1, 0.0, 1, POINTS)], DELTA) == math.inf


@pytest.mark.parametrize("points", [1, LEAST_GRID_POINTS - 1, -1])
def test_a_grid_too_coarse_for_the_proof_is_refused(points):
    with pytest.raises(ValueError, match="grid_points: nothing is proved"):
        Charge(0.1, 1.0, 1, points)
    with pytest.raises(ValueError, match="grid_points: nothing is proved"):
        TruncatedCharge(0.1, 1.0, 1, 10, 100, points)


def test_charges_from_before_they_told_their_grid():
    old = {"kind": "poisson", "sampling_rate": 0.1, "noise_multiplier": 2.0, "steps": 5}
    assert from_json(old) == from_json({**old, "discrete": False}) == Charge(0.1, 2.0, 5)
    with pytest.raises(ValueError, match="without its grid_points has no price"):
        from_json({**old, "discrete": True})
    with pytest.raises(ValueError, match="unknown fields: discrete"):
        from_json({**old, "discrete": False, "grid_points": POINTS})
