"""Every claimed epsilon lies between the bounds of an accountant that shares no code with ours."""

import math
from itertools import pairwise

import numpy as np
import pytest
from prv_accountant import PRVAccountant
from prv_accountant.privacy_random_variables import (
    GaussianMechanism,
    PoissonSubsampledGaussianMechanism,
)
from scipy.optimize import brentq
from scipy.stats import norm

from covering import every_combination, every_pair, full, one_combination
from privacy.second_accountant import (
    epsilon_bounds,
    gaussian,
    poisson,
    replaced,
    truncated,
)
from silotune.privacy import Discrete, ExampleDP, calibrated
from silotune.privacy.accounting.accountant import epsilon, epsilon_over_silos
from silotune.privacy.accounting.charges import Charge, CorrelatedCharge, TruncatedCharge

POINTS = Discrete.grid_points
PAIRS = {"add-remove": poisson, "zero-out": poisson, "replace-one": replaced}
ERROR = 0.001  # of epsilon
GRID = 5e-4  # relative: what the grid of the product may add


def assert_between(claimed, steps, delta, grid=GRID):
    """The claim is no lower than the truth may be, and no higher than it need be."""
    lower, upper = epsilon_bounds(steps, delta, ERROR * claimed)
    assert upper - lower < 4 * ERROR * claimed, "bounds so wide say nothing"
    assert lower <= claimed <= upper * (1 + grid)


# the second accountant itself


@pytest.mark.parametrize(("mu", "delta"), [full(0.1, 1e-5), (1.0, 1e-5), full(3.0, 1e-8)])
def test_the_bounds_hold_the_closed_epsilon_of_gaussians(mu, delta):
    def excess(eps):
        whole = norm.cdf(mu / 2 - eps / mu)
        return whole - math.exp(eps) * norm.cdf(-mu / 2 - eps / mu) - delta

    exact = brentq(excess, 0.0, 100.0, xtol=1e-12)
    once = epsilon_bounds([(gaussian(mu), 1)], delta, ERROR * exact)
    often = epsilon_bounds([(gaussian(mu / 20), 400)], delta, ERROR * exact)
    for lower, upper in (once, often):
        assert exact * (1 - 3 * ERROR) < lower <= exact <= upper < exact * (1 + 3 * ERROR)


def test_noise_that_is_half_a_percent_too_small_is_seen():
    claimed = epsilon([Charge(0.01, 1.0, 1000)], 1e-5)
    lower, _ = epsilon_bounds([(poisson(0.01, 0.995), 1000)], 1e-5, ERROR * claimed)
    assert claimed < lower


@pytest.mark.parametrize(
    ("pair", "published"),
    [
        (poisson(0.01, 1.0), 1.828),
        full(replaced(0.01, 1.0), 2.843),
        full(truncated(0.01, 1.0, 20, 1000), 3.834),
        full(truncated(0.01, 1.0, 30, 1000), 1.8285),
    ],
)
def test_published_epsilons(pair, published):
    lower, upper = epsilon_bounds([(pair, 1000)], 1e-5, 2 * ERROR)
    assert lower - 5e-4 <= published <= upper + 5e-4


@one_combination(step=[(0.01, 1.0), (0.1, 2.0), (0.001, 0.6)], steps=[50, 400], delta=[1e-5, 1e-7])
def test_the_authors_own_package_agrees(step, steps, delta):
    q, sigma = step
    theirs = PRVAccountant(
        prvs=[
            PoissonSubsampledGaussianMechanism(sampling_probability=q, noise_multiplier=sigma),
            GaussianMechanism(noise_multiplier=10.0),
        ],
        max_self_compositions=[400, 3],
        eps_error=0.005,
        delta_error=1e-3 * delta,
    )
    low, _, high = theirs.compute_epsilon(delta=delta, num_self_compositions=[steps, 3])
    claimed = epsilon([Charge(q, sigma, steps), Charge(1.0, 10.0, 3)], delta)
    assert low <= claimed <= high
    lower, upper = epsilon_bounds(
        [(poisson(q, sigma), steps), (gaussian(0.1), 3)], delta, ERROR * claimed
    )
    assert lower <= high
    assert low <= upper


# what is claimed


@every_pair(
    relation=["add-remove", "replace-one"],
    step=[(0.001, 0.6), (0.01, 1.0), (0.1, 0.7), (0.1, 4.0), (0.5, 2.0), (1.0, 10.0)],
    steps=[1, 1000],
    points=[0, POINTS],
    delta=[1e-3, 1e-5, 1e-8],
)
def test_sampled_steps(relation, step, steps, points, delta):
    q, sigma = step
    claimed = epsilon([Charge(q, sigma, steps, points)], delta, relation=relation)
    if claimed < 0.005:  # delta alone nearly covers it
        assert epsilon_bounds([(PAIRS[relation](q, sigma), steps)], delta, 1e-4).lower <= claimed
        return
    assert_between(claimed, [(PAIRS[relation](q, sigma), steps)], delta)


@one_combination(
    step=[(0.2, 1.5, 31), (0.01, 1.0, 1000), (0.1, 3.0, 200)],
    room=[1.2, 2.0, 4.0],
    steps=[1, 50],
    points=[0, POINTS],
)
def test_truncated_steps(step, room, steps, points):
    q, sigma, places = step
    largest = math.ceil(room * q * places)
    claimed = epsilon(
        [TruncatedCharge(q, sigma, steps, largest, places, points)], 1e-5, relation="zero-out"
    )
    assert_between(claimed, [(truncated(q, sigma, largest, places), steps)], 1e-5)


def moved(bands, separation, steps):
    """The norm of what a record that takes part as often as it may adds, column by column."""
    c = [math.prod((2 * i - 1) / (2 * i) for i in range(1, k + 1)) for k in range(bands)]
    matrix = np.array(
        [[c[i - j] if 0 <= i - j < bands else 0.0 for j in range(steps)] for i in range(steps)]
    )
    patterns = ([t for t in range(steps) if pattern >> t & 1] for pattern in range(2**steps))
    return max(
        float(np.linalg.norm(matrix[:, at].sum(axis=1)))
        for at in patterns
        if all(b - a >= separation for a, b in pairwise(at))
    )


@every_combination(relation=tuple(PAIRS), stream=[(1, 1, 6), (3, 4, 10), (5, 2, 9)])
def test_a_stream_beside_a_noisy_count(relation, stream):
    bands, separation, steps = stream
    reach = 2.0 if relation == "replace-one" else 1.0
    charges = [CorrelatedCharge(4.0, steps, bands, separation), Charge(1.0, 20.0, 1)]
    claimed = epsilon(charges, 1e-5, relation=relation)
    pairs = [(gaussian(reach * moved(*stream) / 4.0), 1), (gaussian(reach / 20.0), 1)]
    assert_between(claimed, pairs, 1e-5)


@one_combination(relation=tuple(PAIRS), points=[POINTS, 0])
def test_rounds_of_any_kind_compose(relation, points):
    """Rates, noise and grid change from round to round, and counts are released beside."""
    rounds = [(0.02, 1.1, 40), (0.05, 1.6, 25), (0.1, 3.0, 60), (1.0, 12.0, 2)]
    charges = [Charge(*step, points) for step in rounds] + [Charge(1.0, 30.0, 1)] * 3
    claimed = epsilon(charges, 1e-6, relation=relation)
    pair = PAIRS[relation]
    steps = [*((pair(q, sigma), n) for q, sigma, n in rounds), (pair(1.0, 30.0), 3)]
    assert_between(claimed, steps, 1e-6)


@pytest.mark.full
def test_truncated_and_other_rounds_compose_over_silos():
    silos = [
        [TruncatedCharge(0.1, 2.0, 30, 40, 200), Charge(1.0, 15.0, 1)],
        [Charge(0.05, 1.2, 20, POINTS), Charge(0.02, 1.0, 50)],
    ]
    claimed = epsilon_over_silos(silos, 1e-5, relation="zero-out")
    steps = [
        (truncated(0.1, 2.0, 40, 200), 30),
        (gaussian(1 / 15), 1),
        (poisson(0.05, 1.2), 20),
        (poisson(0.02, 1.0), 50),
    ]
    assert_between(claimed, steps, 1e-5)


@one_combination(
    noise=["discrete", "gaussian"],
    target=[3.0, 1.0, 8.0],
    sampling=["poisson", "truncated-poisson"],
)
def test_calibrated_noise_keeps_the_budget(noise, target, sampling):
    choice = ExampleDP(
        target_epsilon=target, noise=noise, sampling=sampling, relation="zero-out", reserve_rounds=0
    )
    made = calibrated(choice, sizes={"a": 2000}, batch_size=64, rounds=10, local_steps=10)
    sigma = made.clients["a"].noise.multiplier
    pair = poisson if sampling == "poisson" else lambda q, s: truncated(q, s, 256, 2000)
    lower, upper = epsilon_bounds([(pair(0.032, sigma), 100)], 1e-5, ERROR * target)
    assert lower <= target
    assert upper >= 0.997 * target
