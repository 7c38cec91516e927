"""Coins that fit their rate, and a test that would see a wrong one."""

import numpy as np
import pytest
import torch
from scipy import stats

from silotune.privacy import Rotation, TruncatedPoisson
from silotune.privacy.mechanisms.base import RoundRandomness
from silotune.privacy.mechanisms.noise import NoNoise
from silotune.privacy.mechanisms.sampling import epochs, poisson
from silotune.privacy.mechanisms.secure_rng import Randomness

pytestmark = pytest.mark.usefixtures("same_secrets")

DRAWS = 400


def draws(n, q, times=DRAWS):
    """(times, n) booleans: who was in which sample."""
    out = np.zeros((times, n), dtype=bool)
    for row in out:
        row[poisson(n, q, Randomness.secret()).numpy()] = True
    return out


def p_of_rate(sample, q):
    """How likely a deviation from rate q as large as seen is."""
    return stats.binomtest(int(sample.sum()), sample.size, q).pvalue


@pytest.mark.parametrize("q", [0.01, 0.1, 0.37, 0.9])
def test_the_rate_is_q_and_not_ten_percent_off(q):
    sample = draws(int(100 / q), q)  # 40,000 records drawn
    assert p_of_rate(sample, q) > 1e-6
    assert p_of_rate(sample, q * 1.1) < 1e-12
    assert p_of_rate(sample, q * 0.9) < 1e-12


def test_every_record_has_the_same_chance():
    counts = draws(500, 0.2).sum(axis=0)
    spread = ((counts - DRAWS * 0.2) ** 2).sum() / (DRAWS * 0.2 * 0.8)
    assert 1e-6 < stats.chi2(500).sf(spread) < 1 - 1e-6


def p_of_sizes(sizes, n, q):
    """Chi-square of batch sizes against the binomial, in ten classes of equal chance."""
    edges = np.unique(stats.binom(n, q).ppf(np.linspace(0, 1, 11)[1:-1]))
    cdf = np.concatenate([[0.0], stats.binom(n, q).cdf(edges), [1.0]])
    seen = np.bincount(np.searchsorted(edges, sizes), minlength=len(edges) + 1)
    return stats.chisquare(seen, np.diff(cdf) * len(sizes)).pvalue


def test_batch_sizes_are_binomial():
    n, q = 300, 0.3
    sizes = draws(n, q, times=3000).sum(axis=1)
    assert p_of_sizes(sizes, n, q) > 1e-6
    assert p_of_sizes(np.full(3000, 90), n, q) < 1e-12  # a fixed size is not Poisson sampling
    assert p_of_sizes(sizes * 2 - 90, n, q) < 1e-12  # nor are coins that go together


def p_of_independence(left, right):
    table = [[(left & right).sum(), (left & ~right).sum()]]
    table += [[(~left & right).sum(), (~left & ~right).sum()]]
    return stats.chi2_contingency(table).pvalue


def test_records_and_draws_are_independent():
    sample = draws(400, 0.25)
    assert p_of_independence(sample[:, :-1], sample[:, 1:]) > 1e-6  # neighbours
    assert p_of_independence(sample[:-1], sample[1:]) > 1e-6  # one draw and the next
    exclusive = draws(400, 0.25)
    exclusive[:, 1::2] &= ~exclusive[:, ::2]
    assert p_of_independence(exclusive[:, ::2], exclusive[:, 1::2]) < 1e-12


class Words:
    """Randomness whose words are known."""

    def __init__(self, words):
        self._words = np.array(words, dtype=np.uint64)

    def words(self, n):
        return self._words[:n]


def test_coins_are_compared_exactly():
    g = Words([0, 2**63 - 1, 2**63, 2**64 - 1])
    assert poisson(4, 0.5, g).tolist() == [0, 1]
    assert poisson(4, 1 - 2**-53, g).tolist() == [0, 1, 2]
    assert poisson(4, 2.0**-64, g).tolist() == [0]
    assert poisson(4, 2.0**-65, g).tolist() == []
    assert poisson(4, 1.0, g).tolist() == [0, 1, 2, 3]


def test_indices_are_sorted_integers_and_may_be_none():
    sample = poisson(1000, 0.1, Randomness.secret())
    assert sample.dtype == torch.int64
    assert sample.tolist() == sorted(set(sample.tolist()))
    assert poisson(0, 0.5, Randomness.secret()).tolist() == []
    assert poisson(5, 1e-12, Randomness.secret()).tolist() == []


@pytest.mark.parametrize("q", [0.0, -0.1, 1.1, float("nan")])
def test_impossible_rates_are_refused(q):
    with pytest.raises(ValueError, match="batch_size"):
        poisson(10, q, Randomness.secret())


def seeded(seed=0):
    return Randomness.insecure(seed)


def test_epochs_use_no_record_twice_before_the_next_shuffle():
    batches = [b.tolist() for b in epochs(10, 3, 9, seeded())]
    assert [len(b) for b in batches] == [3] * 9
    for epoch in (batches[0:3], batches[3:6], batches[6:9]):
        assert len({i for batch in epoch for i in batch}) == 9
    assert batches[0:3] != batches[3:6]


def test_epochs_follow_the_generator():
    first, again, other = ([b.tolist() for b in epochs(20, 4, 7, seeded(s))] for s in (1, 1, 2))
    assert first == again != other


def test_a_batch_beyond_the_records_takes_all():
    batches = [b.tolist() for b in epochs(5, 8, 3, seeded())]
    assert [sorted(b) for b in batches] == [[0, 1, 2, 3, 4]] * 3


def test_every_record_gets_its_turn():
    seen = torch.cat(list(epochs(10, 4, 2000, seeded()))).bincount()
    assert stats.chisquare(seen.numpy()).pvalue > 1e-6


@pytest.mark.parametrize(("records", "size"), [(0, 4), (4, 0)])
def test_nothing_to_draw_from_is_refused(records, size):
    with pytest.raises(ValueError, match="cannot draw"):
        next(epochs(records, size, 1, seeded()))


def from_seed(seed, start=0):
    return RoundRandomness(Randomness.insecure(seed), NoNoise(), start)


def test_a_truncated_batch_is_a_poisson_batch_or_a_random_part_of_one():
    sampling = TruncatedPoisson(rate=0.5, largest=10, places=30)
    batches = list(sampling.batches(30, 4000, from_seed(0)))
    assert max(map(len, batches)) == 10
    counts = np.bincount([i for batch in batches for i in batch], minlength=30)
    assert stats.chisquare(counts).pvalue > 1e-6, "who is left out must not depend on the place"
    sizes = np.arange(31)
    kept = np.minimum(sizes, 10) @ stats.binom(30, 0.5).pmf(sizes)
    assert counts.sum() == pytest.approx(4000 * kept, rel=0.01)


def test_places_without_a_record_crowd_like_those_with_one():
    """A silo that declares 30 and holds 20: its records are as often in a batch as before."""
    sampling = TruncatedPoisson(rate=0.5, largest=10, places=30)
    full, part = (list(sampling.batches(n, 4000, from_seed(1))) for n in (30, 20))
    assert [[i for i in batch if i < 20] for batch in full] == part


def test_in_a_rotation_every_record_has_one_turn_a_cycle():
    batches = list(Rotation(turns=7).batches(50, 21, from_seed(3)))
    assert batches[:7] == batches[7:14] == batches[14:]
    assert sorted(i for batch in batches[:7] for i in batch) == list(range(50))


def test_a_rotation_goes_on_where_the_last_round_ended():
    whole = list(Rotation(turns=7).batches(50, 10, from_seed(3)))
    assert whole[4:] == list(Rotation(turns=7).batches(50, 6, from_seed(3, start=4)))


def test_one_record_more_changes_nobody_elses_turn():
    less, more = (list(Rotation(turns=5).batches(n, 5, from_seed(3))) for n in (40, 41))
    assert [[i for i in batch if i < 40] for batch in more] == less
