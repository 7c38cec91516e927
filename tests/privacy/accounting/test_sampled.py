"""Noise for many rates: never too little, hardly too much, and the same for whoever asks."""

import math

import pytest

from covering import full
from silotune.privacy.accounting import sampled
from silotune.privacy.accounting.accountant import COARSE, FINE, epsilon
from silotune.privacy.accounting.calibration import calibrate
from silotune.privacy.accounting.charges import Charge
from silotune.privacy.accounting.sampled import STEP, Target, certified

TARGETS = [
    Target(6.0, 1e-5, "add-remove", 30, 2**20),
    full(Target(1.0, 1e-6, "replace-one", 300)),
    Target(0.4, 1e-5, "zero-out", 100, 2**20, (Charge(1.0, 50.0, 1),)),
    full(Target(20.0, 1e-5, "add-remove", 1000)),
]


@pytest.mark.parametrize("target", TARGETS)
def test_no_silo_has_too_little_noise_by_the_librarys_fine_grid(target):
    """Unequal silos, whose own rates lie between those that were certified."""
    for size in (64, 65, 333, 5_003):
        rate = 64 / size
        found = certified(target, rate)
        assert rate <= found.sampling_rate <= rate * STEP * (1 + 1e-12)
        own = target.charge(rate, found.noise_multiplier)
        cost = epsilon([own, *target.besides], target.delta, relation=target.relation, library=True)
        assert 0.995 * target.epsilon <= cost <= target.epsilon


def test_it_is_what_is_found_for_one():
    target = TARGETS[0]
    for rate in (0.5, 0.01):
        alone = calibrate(6.0, 1e-5, lambda sigma, rate=rate: target.charge(rate, sigma))
        assert certified(target, rate).noise_multiplier == pytest.approx(alone, rel=3e-3)


def test_steps_that_lose_less_than_a_grid_have_no_more_noise_than_they_need():
    """Two grids that are both refined to what a step loses say nothing of a finer one."""
    target = Target(0.1, 1e-7, "replace-one", 2_268)
    found = certified(target, 0.05)
    cost = epsilon([found], target.delta, relation=target.relation)
    assert 0.997 * target.epsilon <= cost <= target.epsilon


def test_who_asks_first_does_not_matter():
    """What a silo computes for itself is what a coordinator has computed for all."""

    def asked(sizes):
        for cache in (sampled._sigma, sampled._knot):
            cache.cache_clear()
        found = {n: certified(TARGETS[0], 40 / n).noise_multiplier for n in sizes}
        return [found[n] for n in sorted(found)]

    assert asked([80, 200, 123]) == asked([123, 200, 80])


def test_one_evaluation_is_enough_for_most(monkeypatch):
    asked = []
    cost = Target.cost

    def counted(self, rate, sigma, *, grid):
        asked.append((rate, sigma))
        return cost(self, rate, sigma, grid=grid)

    target = Target(5.0, 1e-5, "add-remove", 40)
    for size in (900, 1100):  # their knots
        certified(target, 32 / size)
    monkeypatch.setattr(Target, "cost", counted)
    for size in range(910, 1100, 10):
        certified(target, 32 / size)
    assert 19 <= len(asked) <= 21


def test_an_interpolation_that_is_wrong_is_not_believed(monkeypatch):
    """Whatever it gives, what comes out has its own bound."""
    for wrong in (-0.3, 0.3, 5.0):
        sampled._sigma.cache_clear()
        monkeypatch.setattr(sampled, "_cubic", lambda logs, x, wrong=wrong: logs[0] + wrong)
        found = certified(TARGETS[0], 0.1)
        cost = epsilon([found], 1e-5, library=True)
        assert 5.95 <= cost <= 6.0
    sampled._sigma.cache_clear()


@pytest.mark.parametrize("rate", [1.0, 0.9995, 1e-5])
def test_the_ends_of_the_rates(rate):
    target = Target(2.0, 1e-5, "add-remove", 10)
    found = certified(target, rate)
    assert rate <= found.sampling_rate <= 1.0
    grid = COARSE if rate < 1e-3 else FINE
    assert epsilon([found], 1e-5, grid=grid) <= 2.0
    assert math.isfinite(found.noise_multiplier)


def test_what_cannot_be_reached_is_told_in_words():
    with pytest.raises(ValueError, match=r"target_epsilon.*raise it"):
        certified(Target(1e-5, 1e-5, "add-remove", 10_000), 0.9)
