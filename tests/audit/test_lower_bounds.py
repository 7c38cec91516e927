import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import beta, binomtest, norm

from silotune.audit.lower_bounds import gaussian_epsilon, one_run, two_worlds, upper_rate

DELTA = 1e-5


@pytest.mark.parametrize(("hits", "trials"), [(0, 10), (3, 10), (17, 500), (499, 500), (500, 500)])
def test_rates_are_bounded_as_scipy_bounds_them(hits, trials):
    interval = binomtest(hits, trials, alternative="less").proportion_ci(0.99, method="exact")
    ours = upper_rate(np.array([hits]), trials, 0.01)[0]
    assert ours == pytest.approx(interval.high, rel=1e-9)


@pytest.mark.parametrize("mu", [0.05, 0.5, 1.0, 3.0, 10.0, 50.0])
def test_epsilon_of_a_gaussian_is_that_of_dp_accounting(mu):
    from dp_accounting.pld.privacy_loss_mechanism import GaussianPrivacyLoss

    loss = GaussianPrivacyLoss(1.0 / mu, sensitivity=1.0)
    assert loss.get_delta_for_epsilon(gaussian_epsilon(mu, DELTA)) == pytest.approx(DELTA, rel=1e-6)


def test_epsilon_of_a_gaussian_at_its_ends():
    assert gaussian_epsilon(0.0, DELTA) == 0.0
    assert gaussian_epsilon(1e-7, DELTA) == 0.0
    assert gaussian_epsilon(1.0, DELTA) == pytest.approx(4.377, abs=5e-4)  # the classical figure


def scores(mu: float, trials: int, seed: int):
    """A useless score, and one that tells the worlds apart the wrong way round."""
    g = np.random.default_rng(seed)
    absent, present = g.standard_normal((2, trials, 2))
    present[:, 1] -= mu
    return absent, present


@pytest.mark.parametrize("seeds", [20, pytest.param(100, marks=pytest.mark.full)])
def test_two_worlds_never_claim_more_than_there_is_and_see_twice_as_much(seeds):
    one = [two_worlds(*scores(1.0, 2000, seed), DELTA) for seed in range(seeds)]
    two = [two_worlds(*scores(2.0, 2000, seed), DELTA) for seed in range(seeds)]
    assert max(b.mu for b in one) <= 1.0 < min(b.mu for b in two)
    assert max(b.distribution_free for b in one) <= gaussian_epsilon(1.0, DELTA)
    assert all(b.gaussian == gaussian_epsilon(b.mu, DELTA) for b in one)
    assert np.median([b.mu for b in one]) > 0.65


def test_two_worlds_that_are_one_prove_next_to_nothing():
    bounds = [two_worlds(*scores(0.0, 500, seed), DELTA) for seed in range(100)]
    assert sum(b.mu > 0.0 for b in bounds) <= 3


def test_two_worlds_apart_prove_as_much_as_the_trials_can():
    """Not one error in 500 of either kind: both rates are at most ``1 - 0.0025^(1/500)``."""
    bounds = two_worlds(*scores(1e4, 1000, 0), DELTA)
    rate = 1.0 - 0.0025 ** (1 / 500)
    assert bounds.mu == pytest.approx(-2 * norm.ppf(rate))
    assert bounds.distribution_free == pytest.approx(math.log((1 - DELTA - rate) / rate))


def test_the_distribution_free_bound_sees_what_is_not_gaussian():
    """One record in twenty is published as it is: invisible to a mean, not to a tail."""
    g = np.random.default_rng(0)
    absent, present = g.standard_normal((2, 20_000, 1))
    present[:1000] += 100.0
    bounds = two_worlds(absent, g.permutation(present), DELTA)
    assert bounds.distribution_free > 3.5


def test_two_worlds_need_trials_with_numbers():
    with pytest.raises(ValueError, match="two trials"):
        two_worlds(np.zeros((1, 1)), np.zeros((5, 1)), DELTA)
    with pytest.raises(ValueError, match="finite"):
        two_worlds(np.full((5, 1), np.nan), np.zeros((5, 1)), DELTA)


def surprise(m: int, r: int, v: int, best: Fraction, delta: Fraction) -> Fraction:
    """Theorem 5.2 of arXiv 2305.08846 in exact numbers, sum by sum."""

    def chance(k: int) -> Fraction:
        return math.comb(r, k) * best**k * (1 - best) ** (r - k)

    beta = sum(chance(k) for k in range(v, r + 1))
    alpha = max(
        sum(chance(k) for k in range(max(0, v - i), v)) / Fraction(i) for i in range(1, m + 1)
    )
    return beta + 2 * m * delta * alpha


@pytest.mark.parametrize(("m", "r", "v"), [(20, 20, 18), (60, 30, 28), (100, 15, 15), (40, 40, 33)])
@pytest.mark.parametrize("delta", [Fraction(0), Fraction(1, 10_000)])
def test_one_run_solves_the_theorem(m, r, v, delta):
    found = one_run(m, r, v, float(delta), confidence=0.95)
    assert found > 0.1
    best = Fraction(1 / (1 + math.exp(-found)))
    assert float(surprise(m, r, v, best, delta)) == pytest.approx(0.05, rel=1e-6)


def test_one_run_without_delta_is_a_bound_on_a_coin():
    rate = beta.ppf(0.01, 46, 5)  # Clopper-Pearson from below, 46 of 50
    assert one_run(1000, 50, 46, 0.0) == pytest.approx(math.log(rate / (1 - rate)))


def test_one_run_of_luck_proves_nothing():
    assert one_run(1000, 50, 25, DELTA) == 0.0
    assert one_run(1000, 0, 0, DELTA) == 0.0


def test_one_run_of_randomised_response_is_nearly_tight():
    best = 1 / (1 + math.exp(-1.0))
    g = np.random.default_rng(0)
    found = [one_run(2000, 2000, int(g.binomial(2000, best)), 0.0) for _ in range(100)]
    assert 0.7 < np.median(found) < 1.0
    assert sum(bound > 1.0 for bound in found) <= 4


@pytest.mark.parametrize(("guesses", "right"), [(11, 5), (5, 6), (5, -1)])
def test_one_run_refuses_impossible_counts(guesses, right):
    with pytest.raises(ValueError, match="impossible"):
        one_run(10, guesses, right, DELTA)
