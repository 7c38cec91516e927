"""Neighbouring relations: published figures, independent integrals, and what is refused."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import binom, norm

from covering import every_combination, full, one_combination
from silotune.privacy.accounting.accountant import COARSE, epsilon, epsilon_over_silos, epsilon_rdp
from silotune.privacy.accounting.charges import Charge, CorrelatedCharge, TruncatedCharge

DELTA = 1e-5
RELATIONS = ("add-remove", "zero-out", "replace-one")


def epsilon_of(upper, lower, delta, width):
    """Of two densities on the line, by quadrature; the worse of both orders."""
    x = np.linspace(-width, width, 20_001)
    p, q, dx = upper(x), lower(x), x[1] - x[0]

    def excess(eps, p, q):
        return np.maximum(p - math.exp(eps) * q, 0.0).sum() * dx - delta

    return max(brentq(excess, 0.0, 50.0, args=pair) for pair in ((p, q), (q, p)))


def gaussian_epsilon(mu, delta):
    """Epsilon of a Gaussian mechanism from its closed delta."""

    def excess(eps):
        whole = norm.cdf(mu / 2 - eps / mu)
        return whole - math.exp(eps) * norm.cdf(-mu / 2 - eps / mu) - delta

    return brentq(excess, 0.0, 100.0, xtol=1e-12)


# Poisson sampling


@pytest.mark.parametrize(
    ("relation", "published"),
    [full("add-remove", 1.828), full("zero-out", 1.828), ("replace-one", 2.843)],
)
def test_published_epsilon_of_each_relation(relation, published):
    found = epsilon([Charge(0.01, 1.0, 1000)], DELTA, relation=relation)
    assert found == pytest.approx(published, abs=0.0006)


@every_combination(relation=RELATIONS, step=[(0.1, 1.0), (0.5, 2.0), (0.9, 0.8)])
def test_one_step_agrees_with_an_integral(relation, step):
    q, sigma = step

    def batch(mean):
        return lambda x: (1 - q) * norm.pdf(x, 0, sigma) + q * norm.pdf(x, mean, sigma)

    exact = epsilon_of(batch(1), batch(-1 if relation == "replace-one" else 0), DELTA, 14 * sigma)
    found = epsilon([Charge(q, sigma, 1)], DELTA, relation=relation)
    assert exact - 1e-6 <= found <= exact * 1.001 + 2e-4


def test_two_opposite_records_are_the_worst_that_can_be_replaced():
    """Whatever two vectors the records give, at every threshold, and in both orders."""
    q, sigma, rng = 0.3, 0.9, np.random.default_rng(0)
    axis = np.linspace(-6, 6, 161)
    x, y = np.meshgrid(axis, axis, indexing="ij")
    thresholds = np.exp(np.linspace(-3, 3, 13))

    def density(mean):
        def at(a, b):
            return norm.pdf(x, a, sigma) * norm.pdf(y, b, sigma)

        return (1 - q) * at(0, 0) + q * at(*mean)

    def sticks(first, second):
        p, r = density(first), density(second)
        area = (axis[1] - axis[0]) ** 2
        return np.array([np.maximum(p - t * r, 0).sum() * area for t in thresholds])

    worst = sticks((1, 0), (-1, 0))
    for angle, one, other in rng.uniform((0, 0, 0), (2 * np.pi, 1, 1), (30, 3)):
        second = (other * math.cos(angle), other * math.sin(angle))
        assert (sticks((one, 0), second) <= worst + 1e-9).all()
        assert (sticks(second, (one, 0)) <= worst + 1e-9).all()


# truncated Poisson sampling


@pytest.mark.parametrize(("largest", "published"), [(20, 3.834), (30, 1.82850), (40, 1.82824)])
@pytest.mark.slow
def test_published_epsilon_of_truncated_samples(largest, published):
    charge = TruncatedCharge(0.01, 1.0, 1000, largest, 1000)
    found = epsilon([charge], DELTA, relation="zero-out")
    assert found == pytest.approx(published, abs=0.0005 if largest == 20 else 0.00001)


def test_without_anything_to_cut_the_price_is_that_of_poisson():
    whole = TruncatedCharge(0.01, 1.0, 100, 1000, 1000)
    found = epsilon([whole], DELTA, relation="zero-out", grid=COARSE)
    assert found == epsilon([Charge(0.01, 1.0, 100)], DELTA, relation="zero-out", grid=COARSE)


@one_combination(others=[1, 0, -1], largest=[6, 3, 12])
def test_no_data_set_costs_more_than_truncated_samples_are_charged(others, largest):
    """All other records give the same, so the sum is a mixture that can be listed."""
    n, q, sigma = 31, 0.2, 1.5
    drawn = np.arange(n)
    chance = binom.pmf(drawn, n - 1, q)

    def density(mine):
        def at(x):
            total = np.zeros_like(x)
            for k, weight in zip(drawn, chance, strict=True):
                stays = q * min(1.0, largest / (k + 1))
                others_with = min(k + 1, largest) - 1  # places left to the others
                total += (
                    weight
                    * q
                    * min(1.0, largest / (k + 1))
                    * norm.pdf(x, others * others_with + mine, sigma)
                )
                cut = q - stays
                total += weight * cut * norm.pdf(x, others * largest, sigma)
                total += weight * (1 - q) * norm.pdf(x, others * min(k, largest), sigma)
            return total

        return at

    exact = epsilon_of(density(1.0), density(0.0), DELTA, 60.0)
    charge = TruncatedCharge(q, sigma, 1, largest, n)
    assert exact <= epsilon([charge], DELTA, relation="zero-out") + 1e-9
    if (largest, others) == (3, -1):  # the cut matters: as a Poisson sample it would be too cheap
        assert exact > 1.1 * epsilon([Charge(q, sigma, 1)], DELTA)


# correlated noise


def brute_force_sensitivity(bands, separation, steps):
    """The largest norm of a sum of columns over all patterns that keep their distance."""
    c = [math.prod((2 * i - 1) / (2 * i) for i in range(1, k + 1)) for k in range(bands)]
    matrix = np.array(
        [[c[i - j] if 0 <= i - j < bands else 0.0 for j in range(steps)] for i in range(steps)]
    )
    best = 0.0
    for pattern in range(2**steps):
        at = [t for t in range(steps) if pattern >> t & 1]
        if all(b - a >= separation for a, b in pairwise(at)):
            best = max(best, float(np.linalg.norm(matrix[:, at].sum(axis=1))))
    return best


@every_combination(relation=RELATIONS, stream=[(1, 1, 5), (3, 4, 10), (5, 2, 9)])
def test_a_stream_is_one_gaussian_mechanism(relation, stream):
    bands, separation, steps = stream
    reach = 2.0 if relation == "replace-one" else 1.0
    mu = reach * brute_force_sensitivity(bands, separation, steps) / 4.0
    found = epsilon([CorrelatedCharge(4.0, steps, bands, separation)], DELTA, relation=relation)
    assert found == pytest.approx(gaussian_epsilon(mu, DELTA), abs=2e-9)


def test_the_rounds_of_a_stream_are_one_stream():
    rounds = [CorrelatedCharge(4.0, 3, 5, 7)] * 4
    whole = epsilon([CorrelatedCharge(4.0, 12, 5, 7)], DELTA)
    assert epsilon(rounds, DELTA) == whole
    # each round alone lets a record take part once, the whole stream lets it do so twice
    alone = gaussian_epsilon(math.sqrt(4) * brute_force_sensitivity(5, 7, 3) / 4.0, DELTA)
    assert whole != pytest.approx(alone, rel=1e-3)


def test_streams_that_differ_in_anything_but_steps_compose():
    two = [CorrelatedCharge(4.0, 6, 5, 7), CorrelatedCharge(4.0, 6, 3, 7)]
    moved = [brute_force_sensitivity(bands, 7, 6) for bands in (5, 3)]
    exact = gaussian_epsilon(math.hypot(*moved) / 4.0, DELTA)
    assert epsilon(two, DELTA) == pytest.approx(exact, abs=2e-9)


def test_equal_streams_at_two_silos_are_two_streams():
    stream = [CorrelatedCharge(4.0, 6, 5, 100)]
    both = epsilon_over_silos([stream, stream], DELTA)
    exact = gaussian_epsilon(math.sqrt(2) * brute_force_sensitivity(5, 100, 6) / 4.0, DELTA)
    assert both == pytest.approx(exact, abs=2e-9)
    assert both > epsilon([*stream, *stream], DELTA)  # one stream of twice the length


def test_streams_and_samples_compose():
    charges = [CorrelatedCharge(4.0, 6, 5, 7), Charge(0.1, 2.0, 20)]
    apart = [epsilon([charge], DELTA) for charge in charges]
    assert max(apart) < epsilon(charges, 2 * DELTA) < sum(apart)


# what nobody has proved


@pytest.mark.parametrize(
    ("charges", "relation", "said"),
    [
        ([TruncatedCharge(0.1, 1.0, 5, 30, 90)], "add-remove", "set it to zero-out"),
        ([TruncatedCharge(0.1, 1.0, 5, 30, 90)], "replace-one", "set it to zero-out"),
        ([TruncatedCharge(0.1, 1.0, 5, 30, 90, 2**20)], "add-remove", "set it to zero-out"),
    ],
)
@pytest.mark.parametrize("price", [epsilon, epsilon_rdp])
def test_what_is_not_proved_is_refused_in_words(price, charges, relation, said):
    with pytest.raises(ValueError, match=said):
        price(charges, DELTA, relation=relation)


def test_what_has_no_steps_needs_no_proof():
    nothing = TruncatedCharge(0.1, 1.0, 0, 30, 90)
    assert epsilon([nothing], DELTA, relation="add-remove") == 0.0
