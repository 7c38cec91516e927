"""The learning rate of a step is the Trainer's, but that warming up begins above 0."""

import pytest
import torch
from transformers import get_scheduler

from silotune.optim.learning_rate import LearningRateSchedule

STEPS, WARMUP = 20, 6
KINDS = ["constant", "constant_with_warmup", "linear", "cosine"]


def theirs(kind, warmup):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_scheduler(kind, optimizer, num_warmup_steps=warmup, num_training_steps=STEPS)
    rates = []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("kind", KINDS)
def test_without_warm_up_it_is_the_trainers(kind):
    schedule = LearningRateSchedule(kind=kind)
    assert [schedule.factor(t, STEPS) for t in range(STEPS)] == pytest.approx(theirs(kind, 0))


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("given", [{"warmup_steps": WARMUP}, {"warmup_ratio": 0.29}])
def test_with_it_every_warm_step_is_the_trainers_next(kind, given):
    schedule, reference = LearningRateSchedule(kind=kind, **given), theirs(kind, WARMUP)
    ours = [schedule.factor(t, STEPS) for t in range(STEPS)]
    assert ours[: WARMUP - 1] == pytest.approx(reference[1:WARMUP])
    assert ours[WARMUP - 1] == 1.0
    assert ours[WARMUP:] == pytest.approx(reference[WARMUP:])
    assert min(ours) > 0, "no step is paid for that moves nothing"


def test_after_the_last_step_it_stays():
    assert LearningRateSchedule(kind="linear").factor(STEPS + 1, STEPS) == 0.0
    assert LearningRateSchedule(kind="cosine").factor(STEPS + 1, STEPS) == 0.0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"warmup_steps": -1}, "warmup_steps: must not be negative"),
        ({"warmup_ratio": 1.0}, "warmup_ratio: must be at least 0 and below 1"),
        ({"warmup_steps": 1, "warmup_ratio": 0.1}, "warmup_ratio: warmup_steps says"),
        ({"warmup_steps": 1}, "warmup_steps: .*take constant_with_warmup"),
        ({"warmup_ratio": 0.1}, "warmup_ratio: .*take constant_with_warmup"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_name(values, words):
    with pytest.raises(ValueError, match=words):
        LearningRateSchedule(**({"kind": "constant"} | values))
