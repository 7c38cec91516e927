"""What noise leaves to learn, in words: the ratio is that of the noise that is really added."""

import math

import pytest
import torch

from by_config import forecast
from federation.small import PRIVATE, small
from silotune.federation.noise_words import over_the_run, verdict


def test_the_ratio_is_that_of_noise_that_adds_up_over_steps_and_silos():
    """Sums of noise drawn step by step, against a signal that always points one way."""
    draw = torch.Generator().manual_seed(0)
    numbers, batch, sigmas, steps = 4000, 8.0, (1.0, 3.0), (30, 12)
    weights = (0.75, 0.25)
    total = torch.zeros(numbers)
    for weight, sigma, taken in zip(weights, sigmas, steps, strict=True):
        for _ in range(taken):
            total += weight * sigma / batch * torch.randn(numbers, generator=draw)
    a_step = [sigma * math.sqrt(numbers) / batch for sigma in sigmas]
    told = over_the_run(a_step, weights, steps)
    assert told == pytest.approx(total.norm().item() / (0.75 * 30 + 0.25 * 12), rel=0.05)
    alike = over_the_run(a_step, weights, (30, 30))
    assert alike == pytest.approx(math.hypot(0.75 * a_step[0], 0.25 * a_step[1]) / 30**0.5)


@pytest.mark.parametrize(
    ("ratio", "words"),
    [(0.02, "leaves room"), (0.2, "will cost accuracy"), (0.7, "with many labels leave nothing")],
)
def test_the_verdict_is_in_words(ratio, words):
    assert words in verdict(ratio)
    assert ("train fewer numbers" in verdict(ratio)) == (ratio > 0.1)


def test_without_noise_there_is_no_verdict(place):
    plan = forecast(small(place))
    assert (plan.noise_to_signal, verdict(0.0)) == (0.0, "")
    assert "signal of the whole run" not in repr(plan)


def test_a_plan_judges_its_noise(place):
    plan = forecast(small(place, *PRIVATE))
    row = plan.silos[0]
    assert plan.noise_to_signal == pytest.approx(row.noise_to_signal / math.sqrt(2 * 6))
    assert verdict(plan.noise_to_signal) in " ".join(repr(plan).split())
    assert "leave nothing to learn" in repr(plan), "24 records a silo, and noise of 2"
