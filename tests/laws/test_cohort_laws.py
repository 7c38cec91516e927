"""Rounds that ask some of the clients: who is public, and nobody does or pays for anything else."""

import json
from collections import Counter
from dataclasses import replace

import pytest

import silotune as st
from covering import plain
from silotune.core import ClientId, encode_task
from silotune.engine import NotAgreedError, QuorumError, federate
from silotune.engine.checkpoint import everything
from silotune.engine.cohorts import Cohorts
from silotune.engine.communication import traffic
from silotune.engine.loop import make_tasks
from silotune.privacy import ExampleLevel, Gaussian, Poisson
from silotune.privacy.ledger.store import LEDGER
from silotune.runtimes import InProcess
from silotune.terms import Terms
from toys import agreed, begin, experiment, loss, notes, silos, trainer

A = plain("ffa-lora")
ROUNDS = 6


def sampled(names, asked=2, **changes):
    cohorts = Cohorts(number=asked)
    return experiment(A, list(names), rounds=ROUNDS, cohorts=cohorts, quorum=2, **changes)


def by_chance(names, rate=0.3, least=1, **changes):
    """A run that has full and empty rounds."""
    cohorts = Cohorts(rate=rate, least=least)
    return experiment(A, list(names), **({"rounds": ROUNDS, "seed": 8} | changes), cohorts=cohorts)


def test_each_client_is_as_likely_as_any_other_and_each_round_draws_anew():
    rounds, clients, asked = 3000, 7, 3
    some = Cohorts(number=asked)
    cohorts = [some.drawn(clients, 0, round) for round in range(rounds)]
    assert all(len(set(cohort)) == asked == len(cohort) for cohort in cohorts)
    assert all(cohort == tuple(sorted(cohort)) for cohort in cohorts)
    times = Counter(i for cohort in cohorts for i in cohort)
    deviation = (rounds * asked / clients * (1 - asked / clients)) ** 0.5
    assert all(abs(n - rounds * asked / clients) < 5 * deviation for n in times.values())
    together = Counter(cohorts)
    assert len(together) == 35
    assert max(together.values()) < 2 * rounds / 35
    assert cohorts != [some.drawn(clients, 1, round) for round in range(rounds)]
    assert some.most_asked(clients, 0, rounds) == max(times.values())


def test_by_chance_every_client_has_a_coin_of_its_own_in_every_round():
    rounds, clients, rate = 3000, 5, 0.3
    chance = Cohorts(rate=rate)
    cohorts = [chance.drawn(clients, 0, round) for round in range(rounds)]
    assert all(cohort == tuple(sorted(set(cohort))) for cohort in cohorts)
    times = Counter(i for cohort in cohorts for i in cohort)
    deviation = (rounds * rate * (1 - rate)) ** 0.5
    assert all(abs(n - rounds * rate) < 5 * deviation for n in times.values())
    both = sum({0, 1} <= set(cohort) for cohort in cohorts)
    assert abs(both - rounds * rate**2) < 5 * (rounds * rate**2) ** 0.5
    empty = rounds * (1 - rate) ** clients
    assert abs(cohorts.count(()) - empty) < 5 * empty**0.5
    assert chance.most_asked(clients, 0, rounds) == max(times.values())
    assert Cohorts(rate=1.0).drawn(clients, 0, 0) == (0, 1, 2, 3, 4)
    fewest = Cohorts(rate=rate, least=2)
    assert [fewest.drawn(clients, 0, r) for r in range(9)] == [
        cohort if len(cohort) > 1 else () for cohort in cohorts[:9]
    ]


@pytest.mark.parametrize("name", ["ffa-lora", "cola", "flora", "fedex-lora"])
def test_a_round_that_draws_nobody_leaves_the_model_as_it_is(name):
    own, method_axes = silos(5), plain(name)
    exp = replace(by_chance(own), axes=method_axes)
    states, empty = [begin(method_axes)], 0
    for done in federate(exp, InProcess(trainer(method_axes), own), states[0]):
        before, after = states[-1], done.state
        assert after.round == before.round + 1
        assert done.pooled.clients == exp.cohort(before.round)
        if not done.pooled.clients:
            empty += 1
            assert (done.bytes_down, done.pooled.bytes_up, done.pooled.missing) == (0, 0, {})
            records = notes(6)
            same = loss(trainer(method_axes), before, records)
            assert loss(trainer(method_axes), after, records) == pytest.approx(same, rel=1e-5)
            if not exp.plan(before.round).fold:
                assert after.factors.digest() == before.factors.digest()
        states.append(after)
    assert 0 < empty < ROUNDS


def test_a_run_by_chance_is_foretold_and_goes_on_in_the_same_bits():
    own = silos(5)
    exp = by_chance(own)
    done = list(federate(exp, InProcess(trainer(A), own), begin(A)))
    assert [set(of_round) for of_round in traffic(exp, begin(A))] == [
        set(r.pooled.clients) for r in done
    ]
    for told, r in zip(traffic(exp, begin(A)), done, strict=True):
        assert sum(sent.down for sent in told.values()) == r.bytes_down
    pause = [r.pooled.clients for r in done].index(()) + 1
    half = list(federate(replace(exp, rounds=pause), InProcess(trainer(A), own), begin(A)))[-1]
    resumed = list(federate(exp, InProcess(trainer(A), own), half.state))[-1].state
    assert everything(resumed).digest() == everything(done[-1].state).digest()
    assert traffic(by_chance(own, rate=1e-9, rounds=2), begin(A)) == [{}, {}]


def test_all_whom_chance_asks_are_needed():
    own = silos(5)
    exp = by_chance(own)
    first = next(r for r in range(ROUNDS) if exp.cohort(r))
    away = exp.cohort(first)[0]

    class Absent(InProcess):
        def train(self, tasks):
            return super().train([task for task in tasks if task.client != away])

    with pytest.raises(QuorumError, match=f"round {first} needs .* {away}: no answer"):
        list(federate(exp, Absent(trainer(A), own), begin(A)))


def test_a_round_asks_its_cohort_and_nobody_else():
    own = silos(5)
    exp, asked = sampled(own), []

    class Seen(InProcess):
        def train(self, tasks):
            asked.append(tuple(task.client for task in tasks))
            return super().train(tasks)

    done = list(federate(exp, Seen(trainer(A), own), begin(A)))
    assert asked == [exp.cohort(round) for round in range(ROUNDS)]
    assert [r.pooled.clients for r in done] == asked
    assert all(not r.pooled.missing for r in done)
    counted = Counter(c for cohort in asked for c in cohort)
    assert {c: len(rounds) for c, rounds in exp.asked_in.items() if rounds} == counted
    half = list(federate(replace(exp, rounds=3), InProcess(trainer(A), own), begin(A)))[-1].state
    resumed = list(federate(exp, InProcess(trainer(A), own), half))[-1].state
    assert everything(resumed).digest() == everything(done[-1].state).digest()


def test_who_comes_late_is_sent_all_and_who_was_there_what_is_new():
    own = silos(5)
    exp = sampled(own)
    foretold = traffic(exp, begin(A))
    for told, done in zip(
        foretold, federate(exp, InProcess(trainer(A), own), begin(A)), strict=True
    ):
        assert sum(sent.down for sent in told.values()) == done.bytes_down
        assert set(told) == set(done.pooled.clients)


def test_all_who_are_asked_are_needed_unless_fewer_will_do():
    own = silos(5)
    exp = sampled(own)
    away = exp.cohort(0)[0]

    class Absent(InProcess):
        def train(self, tasks):
            return super().train([task for task in tasks if task.client != away])

    with pytest.raises(QuorumError, match=f"needs 2 clients .* got 1. {away}: no answer"):
        list(federate(exp, Absent(trainer(A), own), begin(A)))


def test_a_client_is_charged_for_the_rounds_it_trains_in_and_refuses_others(tmp_path):
    mechanism = ExampleLevel(
        sampling=Poisson(0.5), noise=Gaussian(1.0), max_grad_norm=1.0, expected_batch_size=6.0
    )
    own = {
        name: replace(client, privacy=mechanism, held_out=notes(4))
        for name, client in silos(4, home=tmp_path).items()
    }
    for client in own.values():
        client.home.mkdir(parents=True)
    exp = sampled(own, private=True)
    own = agreed(exp, own)
    list(federate(exp, InProcess(trainer(A), own), begin(A)))
    for name, client in own.items():
        charged = [
            json.loads(line)["round"] for line in (client.home / LEDGER).read_text().splitlines()
        ]
        assert charged == list(exp.asked_in[name])
    idle = next(c for c in exp.clients if c not in exp.cohort(0))
    (task,) = make_tasks(exp, [idle], begin(A))
    with pytest.raises(NotAgreedError, match="round is one that does not ask this client"):
        own[idle].agreement.check_training(task)
    own[idle].agreement.check_result(task)
    assert encode_task(task)


def terms(privacy, **changes):
    return Terms(
        model="m",
        objective=st.SequenceClassification(text="t", label="l", labels=("a", "b")),
        method=st.methods.FFALoRA(),
        optimizer=st.optim.SGD(lr=0.1),
        privacy=privacy,
        **({"rounds": 20, "clients_per_round": 3} | changes),
    )


def test_noise_is_for_the_most_rounds_that_one_client_is_asked_in():
    hidden = st.ExampleDP(target_epsilon=3.0, target_delta=1e-5)
    some = terms(hidden)
    most = some.training_of(30).rounds
    assert most == Cohorts(number=3).most_asked(30, 0, 20) < 10
    assert some.training_of(3).rounds == 20
    assert terms(hidden, clients_per_round=None).training_of(30).rounds == 20
    by_rate = terms(hidden, clients_per_round=None, cohort_rate=0.1)
    assert by_rate.training_of(30).rounds == Cohorts(rate=0.1).most_asked(30, 0, 20) < 10


@pytest.mark.parametrize(
    ("privacy", "changes", "words"),
    [
        (st.NoDP(), {"min_clients": 4}, "min_clients: must be at most clients_per_round = 3"),
        (st.NoDP(), {"clients_per_round": 0}, "clients_per_round: must be at least 1"),
        (
            st.ClientDP(target_epsilon=6.0, target_delta=1e-3),
            {"weighting": "uniform"},
            "clients_per_round: ClientDP draws whom it asks in secret",
        ),
        (
            st.ExampleDP(
                target_epsilon=6.0, target_delta=1e-5, noise="correlated", sampling="rotation"
            ),
            {},
            "clients_per_round: noise: correlated hangs together",
        ),
        (st.NoDP(), {"cohort_rate": 0.5}, "cohort_rate: clients_per_round says how many"),
        (st.NoDP(), {"clients_per_round": None, "cohort_rate": 0.0}, "cohort_rate: must be above"),
        (
            st.ClientDP(target_epsilon=6.0, target_delta=1e-3),
            {"weighting": "uniform", "clients_per_round": None, "cohort_rate": 0.5},
            "cohort_rate: ClientDP draws whom it asks in secret",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(privacy, changes, words):
    with pytest.raises(ValueError, match=words):
        terms(privacy, **changes)


def test_thousands_of_clients_are_drawn_from_without_asking_them():
    names = [ClientId(f"silo-{i:04}") for i in range(2000)]
    exp = experiment(A, names, rounds=50, cohorts=Cohorts(number=40))
    assert sum(map(len, exp.asked_in.values())) == 50 * 40
    assert len(make_tasks(exp, exp.cohort(0), begin(A))) == 40
