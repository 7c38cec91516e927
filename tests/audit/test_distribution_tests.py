"""Exact checks see what is missing, and nothing where nothing is."""

from dataclasses import dataclass, replace

import pytest

from audit.faults import BOUND, SIZE, Faulty, honest
from silotune.audit.distribution_tests import coins_check, noise_check, turns_check
from silotune.core import Role
from silotune.privacy import Correlated, ExampleLevel, Rotation, TruncatedPoisson
from silotune.privacy.mechanisms.sampling import epochs
from toys import adapted, adapter, first_factors

UNLIKELY = 1e-6


def noise(privacy, sigma: float):
    model = adapted(adapter())
    model.load(first_factors(adapter()))
    return noise_check(privacy, model, {Role.B, Role.HEAD}, sigma * BOUND / SIZE)


def test_noise_is_there():
    found = noise(honest(3.0), 3.0)
    assert found.chance > UNLIKELY
    assert found.measured == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("share", [0.95, 0.5, 0.0])
def test_missing_noise_is_missed(share):
    found = noise(Faulty(noise=lambda std, key: share * std), 1.0)
    assert found.chance < UNLIKELY
    assert found.measured == pytest.approx(share, abs=0.03)


@dataclass(frozen=True)
class Sampled:
    """A mechanism of which only the samples are looked at."""

    honest: ExampleLevel
    batches: object

    def draws(self, seed, past):
        return self.honest.draws(seed, past)


@pytest.mark.parametrize("rate", [0.01, 0.3, 1.0])
def test_fair_coins_are_fair(rate):
    found = coins_check(honest(rate=rate), rate, records=500, steps=400)
    assert found.chance > UNLIKELY
    assert found.measured == pytest.approx(1.0, abs=0.15)


def test_a_rate_that_is_too_high_is_seen():
    assert coins_check(honest(rate=0.105), 0.1, records=1000, steps=1000).chance < UNLIKELY


def test_batches_of_a_shuffled_list_are_seen():
    """Each record comes as often as it should; the price of Poisson samples is still wrong."""

    def shuffled(records, steps, draws):
        return (b.tolist() for b in epochs(records, records // 10, steps, draws.coins))

    found = coins_check(Sampled(honest(), shuffled), 0.1, records=1000, steps=100)
    assert found.measured == 1.0
    assert found.chance < UNLIKELY


def test_cut_samples_are_no_larger_than_they_say():
    cut = replace(honest(), sampling=TruncatedPoisson(0.1, 12, 100))
    fair = coins_check(cut, 0.1, records=100, steps=200, largest=12)
    assert fair.chance > UNLIKELY
    assert coins_check(honest(rate=0.1), 0.1, records=100, steps=200, largest=12).chance < UNLIKELY


def test_turns_come_round():
    rotating = ExampleLevel(
        sampling=Rotation(7),
        noise=Correlated(1.0, 3),
        max_grad_norm=BOUND,
        expected_batch_size=SIZE,
    )
    assert turns_check(rotating, 7, records=100).chance == 1.0
    assert turns_check(rotating, 8, records=100).chance == 0.0
    assert turns_check(honest(rate=0.2), 5, records=100).chance == 0.0


def test_gradients_are_cleared():
    model = adapted(adapter())
    model.load(first_factors(adapter()))
    noise_check(honest(), model, {Role.B}, BOUND / SIZE)
    assert all(p.grad is None for p in model.tensors.values())
