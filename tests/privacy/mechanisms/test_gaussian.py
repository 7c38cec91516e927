"""Noise that fits its standard deviation, and tests that would see a wrong one.

Seeds are fixed, so that a goodness of fit cannot fail by chance.
"""

import math
import tracemalloc

import numpy as np
import pytest
import torch
from scipy import special, stats

from covering import full
from silotune.privacy.mechanisms.gaussian import standard_normal
from silotune.privacy.mechanisms.secure_rng import Randomness

N = 200_000


def draw(n=N, seed=0):
    return standard_normal(Randomness.insecure(seed), n).numpy()


def p_of_std(x, std):
    """Two-sided chi-square test of the standard deviation around a known mean of 0."""
    tail = stats.chi2(len(x)).cdf(float((x**2).sum()) / std**2)
    return 2 * min(tail, 1 - tail)


def p_of_shape(x, std):
    return stats.kstest(x / std, "norm").pvalue


@pytest.mark.parametrize("seed", [0, full(1), full(2)])
def test_the_std_is_one_and_not_three_percent_off(seed):
    x = draw(seed=seed)
    for p in (p_of_std, p_of_shape):
        assert p(x, 1.0) > 1e-3
        assert p(x, 1.03) < 1e-9
        assert p(x, 0.97) < 1e-9
    assert abs(x.mean()) < 4 / math.sqrt(N)


def test_the_shape_test_sees_what_is_not_gaussian():
    uniform_sums = np.random.default_rng(0).random((N, 2)).sum(axis=1) - 1
    assert p_of_shape(uniform_sums, uniform_sums.std()) < 1e-9


def test_the_tail_is_plausible():
    x = draw(n=2_000_000)
    for sigmas in (3, 4, 5):
        for tail in (x, -x):
            beyond = int((tail > sigmas).sum())
            assert stats.binomtest(beyond, len(x), stats.norm.sf(sigmas)).pvalue > 1e-3


def p_of_dependence(x, y):
    """Chi-square of two samples of standard normals, in eight classes of equal chance each."""
    cuts = stats.norm.ppf(np.linspace(0, 1, 9))
    return stats.chi2_contingency(np.histogram2d(x, y, bins=[cuts, cuts])[0]).pvalue


def sizes(x):
    """Magnitudes of standard normals, made standard normal again."""
    return stats.norm.ppf(np.clip(2 * stats.norm.cdf(np.abs(x)) - 1, 1e-12, 1 - 1e-12))


@pytest.mark.parametrize("lag", [1, 2, 2**14, N // 2])
def test_draws_at_any_distance_are_independent(lag):
    x = draw()
    left, right = x[:-lag], x[lag:]
    assert p_of_dependence(left, right) > 1e-3
    assert p_of_dependence(sizes(left), sizes(right)) > 1e-3
    assert p_of_dependence(left, np.copysign(right, left)) < 1e-12  # the test can fail


class Script:
    """Stands for randomness: gives the words that it was told."""

    def __init__(self, words):
        self.told = np.array(words, dtype=np.uint64)

    def words(self, n):
        assert n == len(self.told)
        return self.told


def test_each_word_becomes_the_quantile_of_its_cell():
    """Words are signed numbers in two's complement: 0 is the outermost cell, and so is -1."""
    words = [0, 1, 2**30, 2**54 + 3, 2**62, 2**63 - 1]
    x = standard_normal(Script(words), len(words))
    cells = [(2 * w + 1) / 2**65 for w in words]
    torch.testing.assert_close(x.abs(), -torch.from_numpy(special.ndtri(cells)), rtol=1e-14, atol=0)
    mirrored = standard_normal(Script([2**64 - 1 - w for w in words]), len(words))
    assert torch.equal(mirrored, -x)


def test_the_outermost_numbers():
    """Phi^-1(2^-65), by mpmath at 200 binary digits, and the middle."""
    x = standard_normal(Script([0, 2**64 - 1, 2**63 - 1, 2**63]), 4)
    assert x.tolist() == pytest.approx([9.155293772686072, -9.155293772686072, 0, 0], rel=1e-15)


def test_small_numbers_are_fine_grained():
    x = np.abs(draw(n=1_000_000))
    assert len(set(x.tolist())) == len(x)
    assert x.min() < 1e-5


def test_the_stream_decides_it_and_nothing_else():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    assert np.array_equal(draw(n=8), draw(n=8))
    assert not np.array_equal(draw(n=8), draw(n=8, seed=1))
    assert torch.equal(torch.get_rng_state(), state)


def test_successive_draws_are_one_long_draw():
    g = Randomness.insecure(0)
    parts = [standard_normal(g, n) for n in (3, 2**14, 5)]
    assert np.array_equal(torch.cat(parts).numpy(), draw(n=2**14 + 8))


def test_numbers_stay_the_same_for_good():
    assert draw(n=4).tolist() == pytest.approx(
        [0.6409753032947895, 1.3439892691604274, 0.4488722161395048, 0.9195106101975653], rel=1e-14
    )


@pytest.mark.parametrize("n", [0, 1, 2**14, 2**14 + 1])
def test_as_many_as_asked_for(n):
    x = standard_normal(Randomness.secret(), n)
    assert x.shape == (n,)
    assert x.dtype == torch.float64
    assert x.isfinite().all()
    assert not x.requires_grad


def test_memory_beside_the_result_stays_small():
    tracemalloc.start()
    draw(n=2_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6  # 16 MB if it were not cut into chunks
