"""Whole runs that ask some of the silos in a round, and whose local optimisers are carried."""

import csv
from pathlib import Path

import pytest

import silotune as st
from by_config import forecast, opened
from federation.objects import federation
from federation.small import NO_WORKER, PRIVATE, small, train, weights, write_csv
from silotune.certificate import issue
from silotune.certificate.accounts import cost
from silotune.certificate.issue import Bound
from silotune.certificate.statement import statement
from silotune.core.files import json_text
from silotune.federation.run import described, rounds
from silotune.privacy.accounting.accountant import COARSE
from silotune.privacy.ledger.chain import Chain, read_chains
from silotune.runs.digests import digest_of_facts
from silotune.runs.folder import RunFolder

SOME = ("train.num_rounds=4", "train.clients_per_round=1", "train.seed=3")
SEEDED = ("privacy.insecure_seeded_noise=true",)
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


@pytest.mark.parametrize("made", ["one noise", "for persons", "not private"])
def test_every_rounds_certificate_is_the_one_that_is_made_of_the_ledgers_alone(place, made):
    persons = ("data.person=who",)
    kinds = {"one noise": (), "for persons": persons, "not private": SEEDED}
    if made == "for persons":
        with_people(place.parent / "notes.csv")
    config = small(place, *PRIVATE, *SOME, *kinds[made], f"output_dir={place.parent}/{made[:3]}")
    folder = RunFolder(Path(config.output_dir))
    for last in (1, None):  # killed after round 1, and gone on with
        with opened(config, [], NO_WORKER, resume=last is None) as job:
            for record in rounds(job):
                if record.round < 0:
                    continue
                chains = read_chains(folder.ledger)
                books = {name: chains.get(name, Chain()) for name in ("east", "west")}
                anew = statement(
                    job.built.agreement,
                    described(job.built.federation),
                    job.facts.run,
                    books,
                    grid=COARSE,
                    bound=Bound(facts=digest_of_facts(job.facts)),
                )
                assert folder.privacy.read_text() == json_text(anew.to_json())
                assert record.epsilon == {
                    name: cost(chain.book(job.facts.run).account, 1e-3, anew.relation, COARSE)
                    for name, chain in books.items()
                }
                if record.round == last:
                    break


def with_people(path: Path) -> None:
    with path.open(newline="") as file:
        records = list(csv.DictReader(file))
    write_csv(path, [{**record, "who": f"p{i % 7}"} for i, record in enumerate(records)])


def test_a_round_accounts_for_those_alone_that_it_asked(place, monkeypatch):
    counted = []
    real = issue._account
    monkeypatch.setattr(
        issue, "_account", lambda *args, **kw: counted.append(1) or real(*args, **kw)
    )
    with opened(small(place, *PRIVATE, *SOME), [], NO_WORKER, resume=False) as job:
        seen = [len(counted) for _ in rounds(job)]
    assert seen == [0, 2, 3, 4, 5]
