"""The certificate: what it lists, and what it says of every kind of mechanism."""

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from by_config import opened
from federation.small import NO_WORKER, PRIVATE, chain_of, small, train
from silotune.certificate import accounts
from silotune.certificate import issue as issuing
from silotune.certificate.accounts import (
    ChargeLine,
    account_of,
    cost,
    cost_rdp,
    from_lines,
    membership_bound,
    to_lines,
)
from silotune.certificate.guarantee import guarantee
from silotune.certificate.issue import Told, issue, standing
from silotune.config import build
from silotune.core.files import finite, json_text, read_json
from silotune.core.units import number_text
from silotune.engine import EVERY_CLIENT
from silotune.federation.run import described
from silotune.objectives import SequenceClassification
from silotune.privacy import Charge, CorrelatedCharge, Discrete, LedgerEntry
from silotune.privacy.accounting.accountant import COARSE, FINE, epsilon, epsilon_over_silos
from silotune.privacy.ledger.chain import read_ledger
from silotune.runs.folder import RunFolder
from silotune.runs.privacy_statement import read_statement
from silotune.runs.unheard import Hearing, Order

GAUSSIAN = ("privacy.noise=gaussian",)
TRUNCATED = ("privacy.sampling=truncated-poisson", "privacy.relation=zero-out")
CORRELATED = ("privacy.sampling=rotation", "privacy.noise=correlated")
CLIENTS = (
    "privacy={unit: client, noise_multiplier: 2, target_delta: 1e-3, max_update_norm: 0.5}",
    "train.weighting=uniform",
    PRIVATE[1],
)
SEEDED = ("privacy.insecure_seeded_noise=true",)
PLANNED = Charge(0.4, 2.0, 6, Discrete.grid_points)


def entry(round=0, attempt=0, steps=2, release="update", silo="east", charge=None):
    return LedgerEntry(
        run="run",
        silo=silo,
        round=round,
        attempt=attempt,
        release=release,
        charge=charge or Charge(0.4, 2.0, steps),
        max_grad_norm=1.0,
        time="2026-01-01T00:00:00+00:00",
    )


def certified(place, *overrides, entries=None, grid=FINE):
    """The certificate of a run that has spent ``entries``; nothing trains."""
    config = small(place, *PRIVATE, *overrides)
    with opened(config, [], NO_WORKER, resume=False) as job:
        agreed = job.built.agreement
        planned = {n: [entry(r, charge=agreed.price(n)) for r in range(3)] for n in agreed.sizes}
        chains = {name: chain_of(own) for name, own in (entries or planned).items()}
        return issue(agreed, described(job.built.federation), "run", chains, grid=grid)


def test_equal_charges_are_added_up_and_others_are_not():
    correlated = CorrelatedCharge(2.0, 5, 3, 4)
    account = account_of(
        [
            entry(0),
            entry(0, attempt=1),
            entry(1),
            entry(1, release="count", charge=Charge(1.0, 9.0, 1)),
            entry(2, charge=correlated),
        ]
    )
    lines = to_lines(account)
    assert [(line["release"], line["times"], line["charge"]["steps"]) for line in lines] == [
        ("update", 3, 6),
        ("count", 1, 1),
        ("update", 1, 5),
    ]
    read = from_lines(lines)
    assert [line.charge for line in read] == [Charge(0.4, 2.0, 6), Charge(1.0, 9.0, 1), correlated]


@pytest.mark.parametrize(
    "line",
    [
        {},
        "update",
        {"release": "update", "times": 0, "charge": {}},
        {"release": "update", "times": 1, "charge": {"kind": "hope"}},
        {"release": 1, "times": 1, "charge": {}},
    ],
)
def test_a_charge_that_is_none_is_refused(line):
    with pytest.raises(ValueError, match="charge"):
        from_lines([line])


def test_rounds_are_those_in_which_a_silo_took_part(place):
    spent = {"east": [entry(0), entry(0, attempt=1), entry(2)], "west": [entry(0)]}
    said = certified(place, entries=spent)
    assert (said.silos["east"].rounds, said.silos["east"].steps) == (2, 6)
    assert (said.silos["west"].rounds, said.silos["west"].steps) == (1, 2)
    assert said.overall["epsilon"] == said.silos["east"].epsilon > said.silos["west"].epsilon
    assert said.silos["east"].epsilon == epsilon([Charge(0.4, 2.0, 6)], 1e-3, library=True)
    assert said.silos["west"].epsilon == epsilon([Charge(0.4, 2.0, 2)], 1e-3)
    assert said.silos["east"].epsilon_rdp > said.silos["east"].epsilon


def test_people_at_several_silos_make_the_silos_compose(place):
    said = certified(place, "data.person=silo")
    assert said.overall["rule"] == "composition"
    both = epsilon_over_silos([[PLANNED], [PLANNED]], 1e-3, library=True)
    assert said.overall["epsilon"] == both
    assert said.overall["epsilon"] > said.silos["east"].epsilon


@pytest.mark.parametrize(
    ("overrides", "sampling", "noise", "accountant", "unclaimed"),
    [
        ((), "by its own coin", "discrete Gaussian on a grid", "PLD", "shuffling"),
        (GAUSSIAN, "by its own coin", "in double precision", "PLD", "shuffling"),
        (TRUNCATED, "a random part is left out", "discrete Gaussian", "PLD", "shuffling"),
        (CORRELATED, "in turn", "correlated over steps", "PLD", "amplification by sampling"),
    ],
    ids=["poisson", "gaussian", "truncated", "correlated"],
)
def test_every_mechanism_has_its_words(place, overrides, sampling, noise, accountant, unclaimed):
    said = certified(place, *overrides)
    assert said.private
    assert sampling in said.sampling
    assert noise in said.noise
    assert said.accountant.startswith(accountant)
    assert any(unclaimed in text for text in said.not_claimed)
    assert all("operating system" in text for text in (said.noise, said.trust_model))
    rounding = any("floating-point numbers in the noise" in text for text in said.not_covered)
    assert rounding == (overrides in (GAUSSIAN, CORRELATED)), "discrete noise closes it"
    assert ("counted on" in said.sampling) == (overrides != CORRELATED)
    assert all(silo.epsilon <= silo.epsilon_rdp for silo in said.silos.values())


def test_seeded_noise_claims_nothing_and_shows_what_would_hold(place):
    said = certified(place, *SEEDED)
    assert not said.private
    assert "seed" in said.not_private_because
    assert said.overall["epsilon"] == math.inf
    assert said.recognition == {}
    assert "operating system" not in said.noise + said.sampling
    for silo in said.silos.values():
        assert (silo.epsilon, silo.epsilon_rdp) == (math.inf, math.inf)
        assert silo.epsilon_if_secret == epsilon([PLANNED], 1e-3, library=True)


def test_hardly_any_noise_is_not_private(place):
    said = certified(place, "privacy.noise_multiplier=0.001")
    assert not said.private
    assert "too small" in said.not_private_because


def test_it_says_how_far_records_move_each_other(place):
    said = certified(place)
    found = said.coupling
    assert (found["together"], found["others"]) == (8, 4)
    assert 0 < found["moved"] < 1e-4
    assert found["moved"] <= found["moved_at_large"]
    text = dict(guarantee(said))["Isolation"]
    assert f"moved by {number_text(found['moved'])} C" in text
    assert any("computed together" in sentence for sentence in said.not_covered)


def test_what_is_computed_one_by_one_moves_nothing_and_says_why(place):
    said = certified(place, "model.dtype=bfloat16")
    assert (said.coupling["together"], said.coupling["moved"]) == (1, 0.0)
    assert "depends on no other. Together, one would" in dict(guarantee(said))["Isolation"]
    assert not any("computed together" in sentence for sentence in said.not_covered)


def test_what_was_asked_to_go_one_by_one_has_no_other_reason(place):
    asked = certified(place, "train.per_device_train_batch_size=1")
    assert dict(guarantee(asked))["Isolation"].endswith("depends on no other.")


def test_clients_need_no_isolation_within(place):
    config = small(place, *CLIENTS)
    with opened(config, [], NO_WORKER, resume=False) as job:
        agreed = job.built.agreement
        entries = [entry(r, charge=agreed.price(EVERY_CLIENT)) for r in range(3)]
        chains = {EVERY_CLIENT: chain_of(entries)}
        said = issue(agreed, described(job.built.federation), "run", chains, grid=1e-3)
    assert said.coupling == {}
    assert "Isolation" not in dict(guarantee(said))


class Own(SequenceClassification):
    """Somebody's own losses."""


def test_an_objective_of_ones_own_was_only_tried(place):
    config = small(place, *PRIVATE)
    with opened(config, [], NO_WORKER, resume=False) as job:
        agreed = job.built.agreement
        own = Own(text="text", label="label", labels=("a", "b"))
        theirs = replace(agreed, terms=replace(agreed.terms, objective=own))
        chains = {n: chain_of([entry(charge=agreed.price(n))]) for n in agreed.sizes}
        for agreement, says in ((agreed, False), (theirs, True)):
            said = issue(agreement, described(job.built.federation), "run", chains, grid=1e-3)
            assert any("not of this package" in text for text in said.not_covered) == says


def test_run_json_says_it_in_one_line(place):
    assert standing(build(small(place, *PRIVATE)).terms) == "example"
    assert standing(build(small(place, *PRIVATE, *SEEDED)).terms).startswith(
        "NOT PRIVATE: Noise and sampling"
    )
    assert standing(build(small(place)).terms).startswith("NOT PRIVATE: This run used no privacy")


def test_what_an_attack_can_reach_is_bounded_by_every_pair_of_epsilon_and_delta():
    def power(sigma):
        return membership_bound([update(Charge(1.0, sigma, 1))], "add-remove")["at_most"]

    from scipy.stats import norm

    for mu in (0.5, 1.0, 2.0):  # a Gaussian mechanism's best test is known
        best = norm.sf(norm.isf(0.01) - mu)
        assert best <= power(1 / mu) <= 2.5 * best
    assert power(0.1) == 1.0
    both = membership_bound([[], update(Charge(1.0, 1.0, 1))], "add-remove")
    assert both["at_most"] == power(1.0)
    assert membership_bound([[]], "add-remove")["at_most"] == 0.01, "blind guesses"


def update(charge):
    return [ChargeLine(release="update", times=1, charge=charge)]


def test_held_out_records_pay_for_scores_and_no_others():
    scores = ChargeLine(release="metric", times=5, charge=Charge(1.0, 1.0, 5))
    count = ChargeLine(release="count", times=1, charge=Charge(1.0, 20.0, 1))
    steps = update(Charge(0.4, 2.0, 6))
    held_out = epsilon([scores.charge], 1e-3)
    assert cost([*steps, scores], 1e-3, "add-remove") == held_out
    assert cost([*steps, count], 1e-3, "add-remove") > cost(steps, 1e-3, "add-remove")
    assert cost_rdp([*steps, scores], 1e-3, "add-remove") > held_out


@pytest.mark.parametrize(("factor", "library"), [(1.0, 1), (1.0 - 1e-5, 2)])
def test_whoever_has_paid_most_is_counted_by_the_library_itself(
    place, monkeypatch, factor, library
):
    """And everybody, should the faster way be wrong."""
    counted = []

    def cost(account, delta, relation, grid, *, library=False):
        counted.append(library)
        return accounts.cost(account, delta, relation, grid, library=library) * (
            1.0 if library else factor
        )

    monkeypatch.setattr(issuing, "cost", cost)
    spent = {"east": [entry(0), entry(1)], "west": [entry(0)]}
    said = certified(place, entries=spent)
    assert counted.count(True) >= library
    true = epsilon([Charge(0.4, 2.0, 2)], 1e-3, library=library == 2)
    assert said.silos["west"].epsilon == true
    assert said.overall["epsilon"] == epsilon([Charge(0.4, 2.0, 4)], 1e-3, library=True)
    assert "has counted the largest figure itself" in said.accountant


def test_while_a_run_goes_on_the_quick_grid_is_used_and_said(place):
    said = certified(place, grid=1e-3)
    assert (said.grid, said.recognition) == (1e-3, {})
    assert "grid 0.001" in said.accountant
    assert "algorithms of dp-accounting" in said.accountant
    assert "itself" not in said.accountant, "which counts at the end"


def test_the_file_is_whole(place):
    config = small(place, *PRIVATE, "train.num_rounds=1")
    train(config)
    folder = RunFolder(Path(config.output_dir))
    data, said = read_json(folder.privacy), read_statement(folder)
    assert data["run"] == read_json(folder.run)["run"]
    assert set(data["versions"]) == {"silotune", "dp-accounting", "torch", "numpy", "cryptography"}
    ledger = read_ledger(folder.site("east") / "ledger.jsonl")
    assert data["silos"]["east"]["charges"] == to_lines(account_of(ledger))
    for name in ("metrics.jsonl", "adapter/adapter_model.safetensors", "checkpoint/state.bin"):
        digest = hashlib.sha256((folder.path / name).read_bytes()).hexdigest()
        assert data["files"][name] == digest
    last = (folder.site("east") / "ledger.jsonl").read_bytes().splitlines(keepends=True)[-1]
    head = {"lines": 1, "head": hashlib.sha256(last).hexdigest()}
    assert {field: data["silos"]["east"][field] for field in head} == head
    assert read_json(folder.run)["ledgers"]["east"] == head
    assert data["recognition"]["at_most"] < 1
    assert said.to_json().keys() | {"version"} == data.keys()
    assert read_json(folder.run)["privacy"] == "example"


def test_without_privacy_nothing_is_claimed(place):
    config = small(place, "train.num_rounds=1")
    train(config)
    data = read_json(RunFolder(Path(config.output_dir)).privacy)
    assert (data["unit"], data["private"]) == ("none", False)
    assert data["not_private_because"]


def test_what_an_account_said_stands_only_while_its_ledger_is_the_same(place):
    with opened(small(place, *PRIVATE), [], NO_WORKER, resume=False) as job:
        agreed, how = job.built.agreement, described(job.built.federation)

    def said(east, west, before=None, grid=COARSE, told=None):
        entries = {"east": east, "west": west}
        chains = {name: chain_of(own) for name, own in entries.items()}
        return issue(agreed, how, "run", chains, grid=grid, before=before, told=told)

    one, two, again = entry(0), entry(1), entry(0, attempt=1)
    before = said([one], [one, two])
    now = said([one, two], [one, two], before)
    assert now == said([one, two], [one, two])
    assert now.silos["west"] is before.silos["west"]
    # another line in the same place, fewer lines, the other grid: nothing is taken over
    assert said([again], [one, two], before) == said([again], [one, two])
    assert said([one], [one], before) == said([one], [one])
    final = said([one], [one, two], before, grid=FINE)
    assert final == said([one], [one, two], grid=FINE)
    assert said([one], [one, two], final, grid=FINE) == final
    # a site that has told nothing new may have charged for what it was asked since
    open_orders = Hearing(orders=(Order("update", 1, "a state"),))
    silent = Told(federation={}, hearings={"east": open_orders, "west": Hearing()})
    presumed = said([one], [one, two], before, told=silent)
    assert presumed == said([one], [one, two], told=silent)
    assert presumed.silos["east"].epsilon > before.silos["east"].epsilon


def test_a_certificate_is_written_as_its_fields_are(place):
    said = certified(place, grid=COARSE)
    east = replace(said.silos["east"], epsilon=math.inf, charges=[{"of": "a\nb", "in": []}])
    odd = {"east": east, 'a "b"\n{é\u2028': said.silos["west"]}
    for one in (said, replace(said, silos=odd), replace(said, silos={}, coupling={"x": math.nan})):
        assert one.to_text() == json_text(one.to_json())
        whole = {"version": 1, **finite(one.to_json())}
        assert one.to_text() == json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
