"""Epochs: clients of unequal sizes take unequal steps, each at its own rates and price."""

from dataclasses import replace
from fractions import Fraction

import pytest

import silotune as st
from covering import plain
from silotune.core import work_text
from silotune.core.local_work import steps_in
from silotune.engine import NotAgreedError, federate
from silotune.engine.loop import make_tasks
from silotune.optim.learning_rate import LearningRateSchedule
from silotune.privacy.accounting.accountant import epsilon
from silotune.privacy.mechanisms_from_choice import client_mechanisms
from silotune.privacy.planned_charges import Training, worst_case_steps
from silotune.runtimes import InProcess
from toys import agreed, begin, experiment, silos, trainer

A = plain("ffa-lora")


def steps(epochs, size, batch):
    return steps_in(size, batch_size=batch, local_steps=None, local_epochs=epochs)


def test_steps_are_the_least_that_make_so_many_epochs():
    for epochs in ("0.1", "0.3", "1", "1.5", "2.7"):
        for size in (1, 3, 10, 30, 128, 1000):
            for batch in (1, 3, 10, 64):
                found, asked = steps(float(epochs), size, batch), Fraction(epochs)
                assert found * batch >= asked * size > (found - 1) * batch
    assert steps(0.1, 30, 1) == 3, "0.1 * 30 is 3.0000000000000004 in binary"
    assert steps_in(30, batch_size=8, local_steps=4, local_epochs=None) == 4
    assert steps_in(30, batch_size=8, local_steps=None, local_epochs=None) == 10
    assert work_text(1, None) == "1 step"
    assert work_text(30, 1.5) == "1.5 epochs (at most 30 steps)"


def unequal(own, **changes):
    taken = {name: 2 + 3 * i for i, name in enumerate(own)}
    return experiment(A, list(own), local_steps=taken, **changes)


def test_every_client_has_steps_and_a_schedule_of_its_own():
    own = silos(3)
    cosine = LearningRateSchedule(kind="cosine", warmup_steps=2)
    exp = unequal(own, lr_schedule=cosine)
    for i, name in enumerate(own):
        alone = experiment(A, [name], local_steps=2 + 3 * i, lr_schedule=cosine)
        for round in range(exp.rounds):
            state = replace(begin(A), round=round)
            (task,) = make_tasks(exp, [name], state)
            (same,) = make_tasks(alone, [name], state)
            assert task.steps == len(task.learning_rates) == 2 + 3 * i
            assert task.learning_rates == same.learning_rates
    done = [*federate(exp, InProcess(trainer(A), own), begin(A))]
    assert [len(r.pooled.clients) for r in done] == [3] * exp.rounds


def test_a_client_does_no_more_and_no_fewer_steps_than_are_its_own():
    own = silos(3)
    exp = unequal(own)
    own = agreed(exp, own)
    first, second, _ = make_tasks(exp, exp.clients, begin(A))
    own[first.client].agreement.check_training(first)
    taken = replace(first, steps=second.steps, learning_rates=second.learning_rates)
    with pytest.raises(NotAgreedError, match="steps"):
        own[first.client].agreement.check_training(taken)
    other = agreed(replace(exp, local_steps=2), own)
    digests = [{c.client: c.agreement.digest for c in clients.values()} for clients in (own, other)]
    assert [digests[0][c] == digests[1][c] for c in exp.clients] == [True, False, False]


def test_noise_is_for_the_steps_of_each_client():
    hidden = st.ExampleDP(target_epsilon=2.0, target_delta=1e-4)
    training = Training(rounds=4, batch_size=8, local_epochs=2.0)
    sizes = {"a": 40, "b": 100}
    for name, mechanism in client_mechanisms(hidden, sizes, training).items():
        taken = worst_case_steps(hidden, training, sizes[name])
        assert taken == (4 + hidden.reserve_rounds) * 2 * sizes[name] // 8
        cost = epsilon([mechanism.charge(taken)], 1e-4, relation=hidden.relation)
        assert 1.9 < cost <= 2.0
        assert epsilon([mechanism.charge(2 * taken)], 1e-4, relation=hidden.relation) > 2.0
