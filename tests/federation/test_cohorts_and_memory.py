"""Whole runs that ask some of the silos in a round, and whose local optimisers are carried."""

import pytest

import silotune as st
from by_config import forecast
from federation.objects import federation
from federation.small import PRIVATE, small, train, weights

SOME = ("train.num_rounds=4", "train.clients_per_round=1", "train.seed=3")
CARRIED = ("train.local_state=carried", "train.optimizer=adamw", "train.learning_rate=0.01")


def test_what_a_plan_says_of_sampled_silos_is_what_they_do_and_pay(place):
    config = small(place, *PRIVATE, *SOME)
    plan = forecast(config)
    records = train(config)[1:]
    trained = [name for record in records for name in record.clients]
    assert [len(record.clients) for record in records] == [1] * 4
    assert [record.missing for record in records] == [{}] * 4
    assert {row.silo: row.steps for row in plan.silos} == {
        name: 2 * trained.count(name) for name in ("east", "west")
    }
    assert plan.bytes_up == sum(record.bytes_up for record in records)
    assert plan.bytes_down == sum(record.bytes_down for record in records)
    for name, curve in plan.epsilon.items():
        assert curve == pytest.approx([record.epsilon[name] for record in records], rel=1e-3)
    assert plan.averaged == pytest.approx(1.0, rel=1e-12)


def test_the_certificate_of_a_sampled_run_counts_on_no_sampling_of_silos(bert, tmp_path):
    hidden = st.ExampleDP(noise_multiplier=2.0, target_delta=1e-3)
    run = federation(
        bert, privacy=hidden, num_examples=20, rounds=4, clients_per_round=1, seed=3
    ).fit(tmp_path / "run")
    verification = run.privacy.verify()
    assert verification.ok, verification.findings
    unclaimed = " ".join(run.privacy.statement.not_claimed)
    assert "amplification by silos that sit out: who takes part is seen" in unclaimed


def test_a_sampled_run_has_rounds_of_nobody_and_goes_on_in_the_same_bits(place):
    chance = (*PRIVATE, "train.num_rounds=4", "train.client_sampling_rate=0.4", "train.seed=4")
    whole = small(place, *chance)
    records = train(whole)[1:]
    assert [bool(record.clients) for record in records] == [False, True, False, True]
    assert [(r.bytes_up, r.bytes_down) for r in records if not r.clients] == [(0, 0)] * 2
    cut = small(place, *chance, f"output_dir={whole.output_dir}-cut")
    train(cut, until=1)
    assert train(cut, resume=True)[-1].clients == records[-1].clients
    plan = forecast(whole)
    assert plan.bytes_down == sum(record.bytes_down for record in records)
    for name, curve in plan.epsilon.items():
        assert curve == pytest.approx([record.epsilon[name] for record in records], rel=1e-3)


def test_a_chance_that_draws_nobody_is_refused(bert):
    with pytest.raises(ValueError, match=r"cohort_rate: 1e-09 of 2 clients .* raise it"):
        federation(bert, cohort_rate=1e-9).plan()


def test_more_silos_than_there_are_cannot_be_asked(bert):
    with pytest.raises(ValueError, match=r"clients_per_round: must be at most the number of .* 2"):
        federation(bert, clients_per_round=3).plan()


def test_a_carried_run_that_is_cut_short_ends_in_the_same_bits(place):
    whole = small(place, *CARRIED)
    train(whole)
    cut = small(place, *CARRIED, f"output_dir={whole.output_dir}-cut")
    train(cut, until=0)
    train(cut, resume=True)
    fresh = small(place, *CARRIED, "train.local_state=fresh", f"output_dir={whole.output_dir}-new")
    train(fresh)
    assert weights(cut) == weights(whole)
    assert weights(fresh) != weights(whole)
