"""The factorisation against dense matrices and all patterns, the stream against both."""

import math
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.linalg import sqrtm, toeplitz

from silotune.privacy.mechanisms import matrix_factorization
from silotune.privacy.mechanisms.gaussian import standard_normal
from silotune.privacy.mechanisms.matrix_factorization import (
    CorrelatedStream,
    best_bands,
    prefix_error,
    sensitivity,
    sqrt_coefficients,
)
from silotune.privacy.mechanisms.secure_rng import Randomness


def prefix_sums(steps):
    """A."""
    return np.tril(np.ones((steps, steps)))


def dense(bands, steps):
    """C."""
    column = np.zeros(steps)
    c = sqrt_coefficients(bands)[:steps]
    column[: len(c)] = c
    return toeplitz(column, np.zeros(steps))


def patterns(separation, steps):
    """All sets of steps that are at least ``separation`` apart."""
    for mask in range(2**steps):
        pattern = [t for t in range(steps) if mask >> t & 1]
        if all(b - a >= separation for a, b in pairwise(pattern)):
            yield pattern


# -- the matrices


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 40])
def test_the_coefficients_are_those_of_the_square_root(steps):
    root = dense(steps, steps)
    np.testing.assert_allclose(root @ root, prefix_sums(steps), atol=1e-13)
    if steps <= 8:  # a defective matrix: scipy loses digits quickly
        np.testing.assert_allclose(np.real(sqrtm(prefix_sums(steps))), root, atol=1e-5)


def test_the_first_coefficients():
    assert sqrt_coefficients(5).tolist() == [1.0, 1 / 2, 3 / 8, 5 / 16, 35 / 128]


def test_the_coefficients_are_positive_and_decrease():
    c = sqrt_coefficients(5000)  # what the worst pattern rests on
    assert (c > 0).all()
    assert (np.diff(c) < 0).all()


# -- sensitivity


@pytest.mark.parametrize("steps", [1, 2, 5, 9, 11])
def test_no_pattern_moves_more_than_the_sensitivity_and_one_moves_as_much(steps):
    for separation in range(1, steps + 2):
        allowed = list(patterns(separation, steps))
        for bands in range(1, steps + 2):  # fewer bands than the separation, as many, and more
            C = dense(bands, steps)
            worst = max(np.linalg.norm(C[:, pattern].sum(axis=1)) for pattern in allowed)
            assert sensitivity(bands, separation, steps) == pytest.approx(worst, rel=1e-12)


def test_all_patterns_includes_a_start_that_is_not_the_first_step():
    assert list(patterns(2, 3)) == [[], [0], [1], [2], [0, 2]]


def test_contributions_of_any_direction_move_less_than_aligned_ones():
    steps, separation, bands = 7, 2, 5
    C, bound = dense(bands, steps), sensitivity(5, 2, 7)
    random = np.random.default_rng(0)
    for pattern in patterns(separation, steps):
        for signs in product([-1.0, 1.0], repeat=len(pattern)):
            assert np.linalg.norm(C[:, pattern] @ np.array(signs)) <= bound + 1e-12
        rows = random.normal(size=(len(pattern), 3))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        assert np.linalg.norm(C[:, pattern] @ rows) <= bound + 1e-12


def test_the_brute_force_sees_a_pattern_that_is_too_dense():
    worst = max(np.linalg.norm(dense(4, 9)[:, p].sum(axis=1)) for p in patterns(2, 9))
    assert sensitivity(4, 3, 9) < worst - 0.1


@pytest.mark.parametrize("bands", [1, 3, 10, 64])
@pytest.mark.parametrize("separation", [1, 7, 10, 100])
def test_more_steps_never_cost_less_not_even_by_a_rounding(bands, separation):
    costs = [sensitivity(bands, separation, steps) for steps in range(200)]
    assert costs[0] == 0.0
    assert costs[1] == 1.0
    assert costs == sorted(costs)


@pytest.mark.parametrize(("bands", "separation"), [(1, 1), (4, 3), (9, 20)])
def test_what_was_released_in_parts_never_costs_more_than_the_stream(bands, separation):
    """A stream that is begun anew shares no noise with the old one, and is charged with it."""
    steps = 9
    C, whole = dense(bands, steps), sensitivity(bands, separation, steps)
    for pattern in patterns(separation, steps):
        for cut in range(steps + 1):
            parts = [t for t in pattern if t < cut], [t for t in pattern if t >= cut]
            assert np.linalg.norm([C[:, p].sum(axis=1) for p in parts]) <= whole + 1e-12


def test_one_band_is_independent_noise():
    for separation, steps in product([1, 3, 10], [1, 9, 10, 11]):
        times = math.ceil(steps / separation)
        assert sensitivity(1, separation, steps) == pytest.approx(math.sqrt(times), rel=1e-15)
        expected = math.sqrt(times * (steps + 1) / 2)
        assert prefix_error(1, separation, steps) == pytest.approx(expected, rel=1e-14)


# -- error


@pytest.mark.parametrize(("steps", "better"), [(20, 1.7), (50, 2.3), (100, 3.0), (500, 5.5)])
def test_the_published_ratios_to_independent_noise(steps, better):
    ratio = prefix_error(1, steps, steps) / prefix_error(steps, steps, steps)
    assert round(ratio, 1) == better


@pytest.mark.parametrize(("bands", "separation"), [(1, 4), (3, 4), (4, 4), (6, 4), (50, 4)])
def test_the_error_is_that_of_the_dense_matrices(bands, separation):
    steps = 30
    noise = prefix_sums(steps) @ np.linalg.inv(dense(bands, steps))
    expected = np.linalg.norm(noise) / math.sqrt(steps) * sensitivity(bands, separation, steps)
    assert prefix_error(bands, separation, steps) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 3, 17, 60, 96])
def test_the_best_bands_beat_all_others(steps):
    for separation in {1, 2, 5, 8, 19, 30, 40, steps, 200}:
        errors = [prefix_error(bands, separation, steps) for bands in range(1, steps + 1)]
        best = best_bands(separation, steps)
        assert errors[best - 1] == min(errors)


@pytest.mark.parametrize(("separation", "steps"), [(40, 800), (100, 1000), (3000, 3000)])
def test_the_best_bands_beat_their_neighbours_in_long_runs(separation, steps):
    best = best_bands(separation, steps)
    for other in (1, best - 1, best + 1, best - separation, best + separation, steps):
        if other >= 1 and other != best:
            assert prefix_error(best, separation, steps) < prefix_error(other, separation, steps)


def test_records_in_every_step_leave_little_to_gain():
    assert best_bands(1, 200) == 1  # nothing may be taken back
    gain = [prefix_error(1, b, 200) / prefix_error(best_bands(b, 200), b, 200) for b in (2, 20, 99)]
    assert gain == pytest.approx([1.349, 3.061, 4.264], abs=1e-3)


# -- the stream


def stream(bands=4, multiplier=2.0, start=0, key=0):
    return CorrelatedStream(Randomness.insecure(key), bands, multiplier, start)


def rows(source, steps, bound=0.5, numbers=64):
    return torch.stack([source.draw(bound, numbers) for _ in range(steps)]).numpy()


@pytest.fixture
def recorded(monkeypatch):
    """The independent rows that streams were made of, in order."""
    seen = []

    def record(g, n):
        seen.append(standard_normal(g, n))
        return seen[-1]

    monkeypatch.setattr(matrix_factorization, "standard_normal", record)
    return seen


@pytest.mark.parametrize("bands", [1, 2, 5, 12, 30])
def test_the_stream_solves_the_factorisation(recorded, bands):
    z = rows(stream(bands, multiplier=3.0), steps=12, bound=0.25)
    xi = torch.stack(recorded).numpy()
    assert z.dtype == np.float64
    assert len(xi) == 12
    np.testing.assert_allclose(dense(bands, 12) @ z, 0.75 * xi, atol=1e-10)
    np.testing.assert_allclose(np.linalg.solve(dense(bands, 12), 0.75 * xi), z, atol=1e-10)
    assert bands == 1 or not np.allclose(z, 0.75 * xi)


def test_a_thousand_steps_lose_no_digits(recorded):
    z = rows(stream(bands=70, multiplier=1.0), steps=1000, bound=1.0, numbers=8)
    xi = torch.stack(recorded).numpy()
    np.testing.assert_allclose(np.linalg.solve(dense(70, 1000), xi), z, atol=1e-10)


def test_one_band_is_the_independent_rows_themselves(recorded):
    z = rows(stream(bands=1, multiplier=2.0), steps=3, bound=0.5)
    assert np.array_equal(z, torch.stack(recorded).numpy())


def test_the_rows_behind_a_stream_are_independent_and_normal(recorded):
    rows(stream(bands=6), steps=40, numbers=2000)
    xi = torch.stack(recorded).numpy()
    assert stats.kstest(xi.ravel(), "norm").pvalue > 1e-6
    correlation = np.corrcoef(xi)[~np.eye(40, dtype=bool)]
    assert np.abs(correlation).max() < 6 / math.sqrt(2000)


def p_of_std(x, std):
    """Two-sided chi-square test of the standard deviation around a known mean of 0."""
    tail = stats.chi2(x.size).cdf(float((x**2).sum()) / std**2)
    return 2 * min(tail, 1 - tail)


@pytest.mark.parametrize(("bands", "separation"), [(1, 30), (7, 10), (21, 30)])
def test_prefix_sums_have_the_error_that_was_promised(bands, separation):
    """The last sum's std, and the mean over all sums, at one unit of budget."""
    steps, bound = 30, 0.5
    multiplier = 2.0 * sensitivity(bands, separation, steps)  # as one release with sigma = 2
    sums = rows(stream(bands, multiplier), steps, bound, numbers=20_000).cumsum(axis=0)
    inverse = np.linalg.inv(dense(bands, steps))
    last = multiplier * bound * np.linalg.norm(inverse.sum(axis=0))
    assert p_of_std(sums[-1], last) > 1e-6
    for wrong in (0.95, 1.05):
        assert p_of_std(sums[-1], last * wrong) < 1e-9
    promised = 2.0 * bound * prefix_error(bands, separation, steps)
    assert math.sqrt((sums**2).mean()) == pytest.approx(promised, rel=0.01)
    independent = multiplier * bound * math.sqrt(steps)
    assert bands == 1 or p_of_std(sums[-1], independent) < 1e-12


def test_a_single_step_has_the_full_noise():
    first = rows(stream(bands=9, multiplier=2.0), 1, bound=0.5, numbers=20_000)
    assert p_of_std(first, 1.0) > 1e-6
    assert p_of_std(first, 0.95) < 1e-9


# -- replay


@pytest.mark.parametrize("bands", [1, 2, 7, 40])
@pytest.mark.parametrize("start", [1, 6, 7, 8, 19])
def test_a_stream_that_is_begun_later_goes_on_bit_by_bit(bands, start):
    whole = rows(stream(bands), 25)
    assert np.array_equal(rows(stream(bands, start=start), 25 - start), whole[start:])


def test_what_the_caller_does_to_a_draw_does_not_reach_the_stream():
    source, untouched = stream(), rows(stream(), 3)
    source.draw(0.5, 64).zero_()
    assert np.array_equal(source.draw(0.5, 64).mul_(0.0).numpy(), np.zeros(64))
    assert np.array_equal(source.draw(0.5, 64).numpy(), untouched[2])


def test_threads_do_not_change_a_bit():
    before, threads = rows(stream(), 6, numbers=70_000), torch.get_num_threads()
    try:
        torch.set_num_threads(2 if threads == 1 else 1)
        assert np.array_equal(rows(stream(), 6, numbers=70_000), before)
    finally:
        torch.set_num_threads(threads)


def first_row(bands=4, multiplier=2.0, bound=0.5, numbers=64, key=0):
    drawn = stream(bands, multiplier, key=key).draw(bound, numbers).numpy()
    return drawn / (multiplier * bound)


@pytest.mark.parametrize(
    "other", [{"bands": 5}, {"multiplier": 2.5}, {"bound": 1.0}, {"numbers": 65}, {"key": 1}]
)
def test_another_stream_shares_no_noise(other):
    assert np.array_equal(first_row(), first_row())
    assert np.abs(first_row() - first_row(**other)[:64]).min() > 1e-9


def test_the_steps_of_a_stream_share_no_rows(recorded):
    rows(stream(), 10)
    values = torch.cat(recorded).tolist()
    assert len(set(values)) == len(values)


# -- refusals


@pytest.mark.parametrize(("bound", "numbers"), [(0.5, 65), (0.4, 64)])
def test_a_stream_does_not_change_within_itself(bound, numbers):
    source = stream()
    source.draw(0.5, 64)
    with pytest.raises(ValueError, match=r"cannot change from .* to"):
        source.draw(bound, numbers)
    assert np.array_equal(source.draw(0.5, 64).numpy(), rows(stream(), 2)[1])  # nothing was lost


@pytest.mark.parametrize("bound", [0.0, -1.0, math.inf, math.nan])
def test_a_sum_must_be_bounded(bound):
    with pytest.raises(ValueError, match="max_grad_norm"):
        stream().draw(bound, 3)


@pytest.mark.parametrize("multiplier", [-1.0, math.inf, math.nan])
def test_an_impossible_multiplier_is_refused(multiplier):
    with pytest.raises(ValueError, match="noise_multiplier"):
        stream(multiplier=multiplier)


@pytest.mark.parametrize(
    "call",
    [
        lambda: sqrt_coefficients(0),
        lambda: stream(bands=0),
        lambda: stream(start=-1),
        lambda: stream().draw(1.0, 0),
        lambda: sensitivity(0, 1, 1),
        lambda: sensitivity(1, 0, 1),
        lambda: sensitivity(1, 1, -1),
        lambda: prefix_error(1, 1, 0),
        lambda: best_bands(0, 1),
        lambda: best_bands(1, 0),
    ],
)
def test_counts_out_of_range_are_refused(call):
    with pytest.raises(ValueError, match="must be at least"):
        call()


def test_no_multiplier_is_no_noise():
    assert not rows(stream(multiplier=0.0), 3).any()
