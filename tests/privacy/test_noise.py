"""Noise that fits its standard deviation, and tests that would see a wrong one."""

import math
import tracemalloc

import numpy as np
import pytest
import torch
from scipy import stats

from silotune.privacy.noise import gaussian

N = 200_000


def draw(std=1.0, n=N):
    return gaussian((n,), std).numpy().astype(np.float64)


def p_of_std(x, std):
    """Two-sided chi-square test of the standard deviation around a known mean of 0."""
    tail = stats.chi2(len(x)).cdf(float((x**2).sum()) / std**2)
    return 2 * min(tail, 1 - tail)


def p_of_shape(x, std):
    return stats.kstest(x / std, "norm").pvalue


@pytest.mark.parametrize("std", [1.0, 0.03, 250.0])
def test_the_std_is_right_and_not_five_percent_off(std):
    x = draw(std)
    for p in (p_of_std, p_of_shape):
        assert p(x, std) > 1e-6
        assert p(x, std * 1.05) < 1e-9
        assert p(x, std * 0.95) < 1e-9
    assert abs(x.mean()) < 6 * std / math.sqrt(N)


def test_the_shape_test_sees_what_is_not_gaussian():
    uniform_sums = np.random.default_rng(0).random((N, 2)).sum(axis=1) - 1
    assert p_of_shape(uniform_sums, uniform_sums.std()) < 1e-9


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
    assert p_of_dependence(left, right) > 1e-6
    assert p_of_dependence(sizes(left), sizes(right)) > 1e-6


def test_the_pairs_of_box_and_muller_are_independent():
    x = draw(n=2**15)  # one chunk: cosines, then sines, of the same angles
    left, right = x[: 2**14], x[2**14 :]
    assert p_of_dependence(left, right) > 1e-6
    assert p_of_dependence(sizes(left), sizes(right)) > 1e-6  # cosine and sine share a radius
    assert p_of_dependence(left, np.copysign(right, left)) < 1e-12  # the test can fail


def test_the_tail_is_plausible():
    x = np.abs(draw(n=1_000_000))
    for sigmas in (3, 4):
        expected = 2 * stats.norm.sf(sigmas)
        assert stats.binomtest(int((x > sigmas).sum()), len(x), expected).pvalue > 1e-6
    assert x.max() < 8.6


@pytest.mark.parametrize(("bits", "bound"), [(0, math.sqrt(2 * 53 * math.log(2))), (255, 0.0)])
def test_the_outermost_uniforms_are_finite(monkeypatch, bits, bound):
    monkeypatch.setattr("os.urandom", lambda n: bytes([bits]) * n)
    x = gaussian((4,), 1.0)
    assert x.isfinite().all()
    assert x.abs().max() == pytest.approx(bound, abs=1e-6)


def test_no_seed_decides_it_and_no_state_is_used_up():
    torch.manual_seed(3)
    first, state = gaussian((8,), 1.0), torch.get_rng_state()
    torch.manual_seed(3)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(gaussian((8,), 1.0), first)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (5, 7), (0,), (2, 0), (2**15 + 1,)])
def test_any_shape(shape):
    x = gaussian(torch.Size(shape), 2.0)
    assert x.shape == shape
    assert x.dtype == torch.float32
    assert not x.requires_grad
    assert (x != 0).all()


def test_zero_std_is_zero():
    assert not gaussian((100,), 0.0).any()


@pytest.mark.parametrize("std", [-1.0, math.inf, math.nan])
def test_an_impossible_std_is_refused(std):
    with pytest.raises(ValueError, match="standard deviation"):
        gaussian((3,), std)


def test_memory_beside_the_result_stays_small():
    tracemalloc.start()
    gaussian((2_000_000,), 1.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6  # 16 MB if it were not cut into chunks
