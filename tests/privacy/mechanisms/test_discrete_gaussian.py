"""Integers that follow the discrete Gaussian, and an exact decision wherever it is a close one.

Seeds are fixed, so that a goodness of fit cannot fail by chance.
"""

import math
import tracemalloc
from decimal import localcontext
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy import stats

from silotune.privacy.mechanisms import discrete_gaussian as discrete
from silotune.privacy.mechanisms.discrete_gaussian import (
    _exp_between,
    _Proposal,
    _Uniform,
    discrete_gaussian,
)
from silotune.privacy.mechanisms.secure_rng import Randomness

N = 200_000
ALL_ONES = 2**64 - 1


def draw(std, n=N, seed=0):
    return discrete_gaussian(Randomness.insecure(seed), n, std).numpy()


def pmf(std):
    """Integers and their probabilities, all but 1e-40 of them."""
    reach = math.ceil(14 * std) + 1
    x = np.arange(-reach, reach + 1)
    weights = [math.exp(-0.5 * (int(i) / std) ** 2) for i in x]
    return x, np.array(weights) / math.fsum(weights)


def p_of_pmf(drawn, std):
    """Chi-square against the exact probabilities; rare integers are put together."""
    x, chances = pmf(std)
    inside = np.abs(drawn) <= x[-1]
    counts = np.bincount(drawn[inside] - x[0], minlength=len(x))
    often = len(drawn) * chances >= 10
    observed = [*counts[often], len(drawn) - counts[often].sum()]
    expected = [*chances[often], 1.0 - chances[often].sum()]
    return stats.chisquare(observed, np.array(expected) * len(drawn)).pvalue


@pytest.mark.parametrize("std", [0.3, 0.5, 1.0, 1.5, 3.3, 12.7, 16.0, 40.5, 91.0, 300.1])
def test_probabilities_are_right_and_not_five_percent_off(std):
    x = draw(std)
    assert p_of_pmf(x, std) > 1e-3
    assert p_of_pmf(x, std * 1.05) < 1e-9
    assert p_of_pmf(x, std * 0.95) < 1e-9


def test_the_fit_sees_what_is_only_nearly_a_discrete_gaussian():
    """A rounded Gaussian has another law, and a second zero is seen."""
    rounded = np.rint(0.6 * stats.norm.ppf(np.linspace(0, 1, N + 2)[1:-1])).astype(np.int64)
    assert p_of_pmf(rounded, 0.6) < 1e-9
    x = draw(3.0)
    assert p_of_pmf(np.concatenate([x, np.zeros((x == 0).sum(), dtype=np.int64)]), 3.0) < 1e-9


LARGE = [2.0**16, 2.0**20 * 1.41, 3e6 + 0.7, 2.0**24, 2.0**40]


def p_of_std(x, std):
    """Two-sided chi-square test of the standard deviation around a known mean of 0."""
    tail = stats.chi2(len(x)).cdf(float(((x / std) ** 2).sum()))
    return 2 * min(tail, 1 - tail)


def p_of_shape(x, std):
    return stats.kstest(x / std, "norm").pvalue


@pytest.mark.parametrize("std", LARGE)
def test_a_large_one_is_gaussian_and_not_three_percent_off(std):
    x = draw(std)
    for p in (p_of_std, p_of_shape):
        assert p(x, std) > 1e-3
        assert p(x, std * 1.03) < 1e-9
        assert p(x, std * 0.97) < 1e-9
    assert abs(x.mean()) < 4 * std / math.sqrt(N)


@pytest.mark.parametrize("std", LARGE)
def test_low_order_digits_of_a_large_one_are_even(std):
    x = draw(std)
    counts = np.bincount(x & 63, minlength=64)
    assert stats.chisquare(counts).pvalue > 1e-3
    assert stats.chisquare(np.bincount(x & 62, minlength=64)[::2]).pvalue > 1e-3
    assert stats.chisquare(np.bincount(4 * x & 63, minlength=64)).pvalue < 1e-9  # it can fail


@pytest.mark.parametrize("std", [1.0, 2.0**20])
def test_the_tail_is_plausible(std):
    x, (grid, chances) = np.abs(draw(std, n=1_000_000)), pmf(1.0)
    for sigmas in (3, 4, 5):
        continuous = 2 * stats.norm.sf(sigmas)
        chance = chances[np.abs(grid) >= sigmas].sum() if std == 1.0 else continuous
        assert stats.binomtest(int((x >= sigmas * std).sum()), len(x), chance).pvalue > 1e-3


def p_of_dependence(left, right):
    cuts = stats.norm.ppf(np.linspace(0, 1, 9))
    return stats.chi2_contingency(np.histogram2d(left, right, bins=[cuts, cuts])[0]).pvalue


@pytest.mark.parametrize("lag", [1, 2**14, N // 2])
def test_draws_at_any_distance_are_independent(lag):
    x = draw(2.0**20) / 2.0**20
    assert p_of_dependence(x[:-lag], x[lag:]) > 1e-3
    sizes = stats.norm.ppf(2 * stats.norm.cdf(np.abs(x)) - 1)
    assert p_of_dependence(sizes[:-lag], sizes[lag:]) > 1e-3
    assert p_of_dependence(x[:-lag], x[lag:] + 0.05 * x[:-lag]) < 1e-9  # it can fail


@pytest.mark.parametrize("std", [5e-324, 1e-300, 1e-3, 0.05])
def test_a_tiny_one_is_zero_almost_surely(std):
    assert not draw(std, n=1000).any()


def test_zero_std_is_zero_and_reads_nothing():
    g = Randomness.insecure(0)
    assert not discrete_gaussian(g, 100, 0.0).any()
    assert np.array_equal(g.words(1), Randomness.insecure(0).words(1))


@pytest.mark.parametrize("std", [-1.0, 2.0**41, math.inf, math.nan])
def test_an_impossible_std_is_refused(std):
    with pytest.raises(ValueError, match="standard deviation of 0 to 2\\^40"):
        draw(std)


@pytest.mark.parametrize("n", [0, 1, 3, 2**14 + 1])
def test_as_many_as_asked_for(n):
    x = discrete_gaussian(Randomness.insecure(0), n, 2.0**20)
    assert x.shape == (n,)
    assert x.dtype == torch.int64
    assert len(set(x.tolist())) >= n * 0.95


def test_numbers_stay_the_same_for_good():
    """On every machine, since each decision is exact."""
    assert draw(2.0**20 + 0.1, n=5).tolist() == [1394161, -2504093, 1120395, 1770513, -1165773]
    assert draw(2.5, n=12).tolist() == [-2, 4, 2, -3, 2, 1, 2, 2, -2, 1, 3, 2]
    assert draw(2.5, n=12, seed=1).tolist() != draw(2.5, n=12).tolist()


def test_memory_beside_the_result_stays_small():
    tracemalloc.start()
    draw(2.0**20, n=1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6 + 3e6


# Close decisions


class Script:
    """Stands for randomness: gives the words that it was told."""

    def __init__(self, *words):
        self.left = list(words)

    def words(self, n):
        given, self.left = self.left[:n], self.left[n:]
        return np.array(given, dtype=np.uint64)


def scaled_exp(exponent, digits):
    """floor(2^digits e^exponent), by Decimal with digits to spare."""
    with localcontext(prec=digits) as context:
        value = (context.create_decimal(exponent.numerator) / exponent.denominator).exp()
        return int(value * 2**digits)


def series_exp(exponent, digits):
    """The same by Taylor's series in rational numbers, for -1 <= exponent <= 0."""
    total, term = Fraction(0), Fraction(1)
    for i in range(1, 80):
        total += term
        term *= exponent / i
    return int(total * 2**digits)


@pytest.mark.parametrize("exponent", [Fraction(-1), Fraction(-1, 16), Fraction(-7, 9)])
@pytest.mark.parametrize("digits", [64, 128, 320])
def test_exponentials_lie_between_their_bounds(exponent, digits):
    low, high = _exp_between(exponent, digits)
    assert low == series_exp(exponent, digits) == scaled_exp(exponent, digits)
    assert high == low + 1


@pytest.mark.parametrize("exponent", [Fraction(-(10**6)), -(Fraction(10) ** 650), Fraction(-50)])
def test_bounds_of_a_tiny_exponential(exponent):
    low, high = _exp_between(exponent, 64)
    assert low <= 0 < high <= 1


HALF = Fraction(-1, 2)


@pytest.mark.parametrize(
    ("word", "more", "below"),
    [
        (0, [], True),
        (scaled_exp(HALF, 64) - 1, [], True),
        (scaled_exp(HALF, 64) + 1, [], False),
        (ALL_ONES, [], False),
        (scaled_exp(HALF, 64), [0], True),
        (scaled_exp(HALF, 64), [ALL_ONES], False),
        (scaled_exp(HALF, 64), [scaled_exp(HALF, 128) % 2**64, 0], True),
        (scaled_exp(HALF, 64), [scaled_exp(HALF, 128) % 2**64, ALL_ONES], False),
    ],
)
def test_a_number_is_compared_with_as_many_digits_as_it_takes(word, more, below):
    script = Script(*more)
    assert _Uniform(word, script).below_exp(HALF) is below
    assert script.left == []


def test_digits_once_drawn_are_kept():
    number = _Uniform(scaled_exp(HALF, 64), Script(0))
    assert number.below_exp(HALF)
    assert number.below_exp(HALF)  # draws nothing more: the script is empty


def test_every_number_is_below_one():
    assert _Uniform(ALL_ONES, Script()).below_exp(Fraction(0))


def geometric(words, steps, *more):
    proposal = _Proposal(std=1.0, scale=steps, steps=steps)
    return proposal._geometric(Script(*more), np.array(words, dtype=np.uint64)).tolist()


def close_to_thresholds(steps):
    """Words around exp(-v / k) 2^64, and how many thresholds each is below."""
    for v in range(1, 20 * steps, steps // 2 + 1):
        threshold = scaled_exp(Fraction(-v, steps), 64)
        for off in (1, 2, 2**9, 2**20):
            if off < threshold / 2**10:
                yield threshold - off, v
            if off < threshold / 2**10 or v == 1:
                yield threshold + off, v - 1


@pytest.mark.parametrize("steps", [1, 16])
def test_close_steps_are_right(steps, monkeypatch):
    words, expected = zip(*close_to_thresholds(steps), strict=True)
    assert geometric(words, steps) == list(expected)
    monkeypatch.setattr(discrete, "_STEP_MARGIN", 0.0)
    assert geometric(words, steps) != list(expected)  # float64 alone would be wrong


@pytest.mark.parametrize(("more", "v"), [(0, 16), (ALL_ONES, 15)])
def test_a_step_that_64_digits_do_not_settle(more, v):
    assert geometric([scaled_exp(Fraction(-1), 64)], 16, more) == [v]


def test_the_outermost_steps():
    assert geometric([ALL_ONES, 2**63], 16) == [0, 11]
    assert geometric([0], 16, ALL_ONES, 1) == [int(64 * math.log(2) * 16)]
    assert geometric([0], 16, 0, 2**63) == [int(129 * math.log(2) * 16)]


PROPOSALS = [_Proposal.near(std) for std in (0.3, 1.0, 2.5, 100.3, 2.0**20 + 0.1, 2.0**40 - 1)]


def candidates(proposal):
    """Some (Y, U) with the exponent of the probability that Y is kept."""
    width = proposal.scale // proposal.steps
    std = Fraction(proposal.std)
    for step in (0, 1, proposal.steps, 2 * proposal.steps):
        for inner in {0, width // 3, width - 1}:
            size = step * width + inner
            off = Fraction(size) / std - std / proposal.scale
            yield size, inner, -off * off / 2 - Fraction(inner, proposal.scale)


def accepted(proposal, words, chosen, *more):
    size, inner, _ = (np.array(column) for column in zip(*chosen, strict=True))
    words = np.array(words, dtype=np.uint64)
    return proposal._accepted(Script(*more), words, size, inner).tolist()


@pytest.mark.parametrize("proposal", PROPOSALS, ids=str)
def test_close_acceptances_are_right(proposal, monkeypatch):
    chosen = [c for c in candidates(proposal) if 2**21 < scaled_exp(c[2], 64) < 2**64 - 2**21]
    thresholds = [scaled_exp(exponent, 64) for _, _, exponent in chosen]
    for off in (1, 2, 2**9, 2**20):
        assert all(accepted(proposal, [t - off for t in thresholds], chosen))
        assert not any(accepted(proposal, [t + off for t in thresholds], chosen))
    assert all(accepted(proposal, thresholds, chosen, *[0] * len(chosen)))
    assert not any(accepted(proposal, thresholds, chosen, *[ALL_ONES] * len(chosen)))
    monkeypatch.setattr(discrete, "_KEEP_MARGIN", 0.0)
    words = [t - 1 for t in thresholds] + [t + 1 for t in thresholds]
    assert accepted(proposal, words, chosen * 2) != [True] * len(chosen) + [False] * len(chosen)


@pytest.mark.parametrize("std", [0.3, 1.0, 2.5, 100.3, 2.0**20 + 0.1, 2.0**40 - 1])
def test_the_quick_decisions_are_the_exact_ones(std, monkeypatch):
    quick = draw(std, n=60, seed=5).tolist()
    exact = []
    monkeypatch.setattr(discrete, "_STEP_MARGIN", 1.0)
    monkeypatch.setattr(discrete, "_KEEP_MARGIN", 2.0)
    monkeypatch.setattr(discrete, "_exp_between", lambda *x: exact.append(x) or _exp_between(*x))
    assert draw(std, n=60, seed=5).tolist() == quick
    assert len(exact) > 2 * 60


@pytest.mark.parametrize("std", [0.7, 0.71, 1.0, 1.4, 1.42, 3.0, 1000.0, 2.0**20 * 1.41, 2.0**40])
def test_most_candidates_are_kept(std):
    proposal = _Proposal.near(std)
    assert proposal.scale % proposal.steps == 0
    assert len(proposal.kept(Randomness.insecure(3), 20_000)) > 0.4 * 20_000
    if std >= 16:
        assert len(proposal.kept(Randomness.insecure(3), 20_000)) > 0.62 * 20_000
