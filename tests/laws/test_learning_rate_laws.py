"""A schedule goes over the steps of the whole run, wherever rounds end; or over those of a link."""

from dataclasses import dataclass, field

import pytest
import torch

import silotune as st
from silotune.core import Role
from silotune.engine import federate
from silotune.optim import SGD, AdamW
from silotune.optim.learning_rate import LearningRateSchedule
from silotune.runtimes import InProcess
from silotune.terms import Terms
from toys import axes, begin, experiment, silos, trainer

COSINE = LearningRateSchedule(kind="cosine", warmup_steps=3)
LINEAR = LearningRateSchedule(kind="linear", span="link")


def rates(exp):
    by_round = (exp.learning_rates(round, exp.local_steps) for round in range(exp.rounds))
    return [rate for of_round in by_round for rate in of_round]


def test_rounds_do_not_show_in_the_rates():
    a = axes("fedit", SGD(lr=0.3))
    in_one = experiment(a, ["a"], rounds=1, local_steps=12, lr_schedule=COSINE)
    in_four = experiment(a, ["a"], rounds=4, local_steps=3, lr_schedule=COSINE)
    assert rates(in_one) == rates(in_four)
    assert max(rates(in_one)) == 0.3
    assert len(set(rates(in_one))) > 9


def test_every_link_has_a_schedule_of_its_own():
    a = axes("cola", SGD(lr=1.0), fold_every=2)
    exp = experiment(a, ["a"], rounds=5, local_steps=2, lr_schedule=LINEAR)
    assert rates(exp) == [1.0, 0.75, 0.5, 0.25, 1.0, 0.75, 0.5, 0.25, 1.0, 0.5]


@dataclass(frozen=True)
class Observed(SGD):
    """Notes the rates that its steps were taken at; B moves at twice the rate."""

    seen: list = field(default_factory=list)

    def build(self, tensors, lr):
        fast = [p for key, p in tensors.items() if key.role is Role.B]
        slow = [p for key, p in tensors.items() if key.role is not Role.B]
        optimizer = torch.optim.SGD([{"params": slow}, {"params": fast, "lr": 2 * lr}], lr=lr)
        optimizer.register_step_pre_hook(
            lambda *_: self.seen.append([group["lr"] for group in optimizer.param_groups])
        )
        return optimizer


@pytest.mark.parametrize("schedule", [COSINE, LearningRateSchedule()])
def test_every_step_is_taken_at_its_rate_and_groups_keep_theirs_to_each_other(schedule):
    optimizer = Observed(lr=0.3)
    a, own = axes("fedit", optimizer), silos(1)
    exp = experiment(a, list(own), rounds=3, local_steps=2, lr_schedule=schedule)
    list(federate(exp, InProcess(trainer(a), own), begin(a)))
    assert [slow for slow, _ in optimizer.seen] == pytest.approx(rates(exp), rel=1e-15)
    assert [fast for _, fast in optimizer.seen] == pytest.approx([2 * r for r in rates(exp)])


@pytest.mark.parametrize("optimizer", [SGD(lr=0.1, momentum=0.9), AdamW(lr=0.02)])
def test_one_silo_whose_state_is_carried_trains_as_without_rounds(optimizer, tmp_path):
    a, ends = axes("fedit", optimizer), []
    for rounds in (1, 4):
        own = silos(1, records=8, batch_size=8, home=tmp_path / str(rounds))
        exp = experiment(
            a, list(own), rounds=rounds, local_steps=8 // rounds, carried=True, lr_schedule=COSINE
        )
        ends.append(list(federate(exp, InProcess(trainer(a), own), begin(a)))[-1].state.factors)
    assert max(float((ends[0][k] - ends[1][k]).abs().max()) for k in ends[0]) < 1e-9


def terms(method=None, **changes):
    return Terms(
        model="m",
        objective=st.SequenceClassification(text="t", label="l", labels=("a", "b")),
        method=method or st.methods.FedIT(),
        optimizer=AdamW(lr=1e-3),
        **({"rounds": 3, "local_steps": 2} | changes),
    )


def test_a_schedule_without_the_steps_that_it_needs_is_refused():
    warm = {"lr_schedule": "linear", "warmup_steps": 5}
    assert terms(**warm).learning_rate_schedule.warmup_steps == 5
    with pytest.raises(ValueError, match="warmup_steps: must be below the 6 steps"):
        terms(**warm | {"warmup_steps": 6})
    chain = st.methods.COLA(fold_every=2)
    with pytest.raises(ValueError, match="warmup_steps: must be below the 4 steps"):
        terms(chain, **warm, lr_schedule_span="link")
    with pytest.raises(ValueError, match="lr_schedule_span: link is for methods that fold"):
        terms(lr_schedule_span="link")
