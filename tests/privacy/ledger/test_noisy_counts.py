"""Noisy counts: what they hide, what they cost, and that no second one can be had."""

import math
from dataclasses import replace

import numpy as np
import pytest

from covering import full
from silotune.core import ClientId, ClientTask
from silotune.core.round_plan import RoundPlan
from silotune.engine.client_releases import ACCURACY, RECORDS, noisy_records, noisy_score
from silotune.privacy import (
    Charge,
    ExampleLevel,
    Gaussian,
    LedgerEntry,
    Poisson,
    PrivacyBudget,
    SiloStore,
)
from silotune.privacy.accounting.accountant import epsilon, epsilon_by_round
from silotune.privacy.accounting.calibration import calibrate
from silotune.privacy.ledger.chain import read_ledger
from silotune.privacy.ledger.entry import COUNT, METRIC, UPDATE
from silotune.privacy.ledger.noisy_counts import NoisyCount, Releases, by_table
from toys import silos

pytestmark = pytest.mark.usefixtures("same_secrets")

DELTA = 1e-5


def test_a_noisy_count_is_whole_and_has_the_noise_that_is_charged():
    noise = NoisyCount(multiplier=7.0)
    drawn = np.array([noisy_at(noise, 100) for _ in range(2000)])
    assert all(isinstance(noisy_at(noise, 100), int) for _ in range(3))
    assert drawn.mean() == pytest.approx(100, abs=5 * 7 / math.sqrt(2000))
    assert drawn.std() == pytest.approx(7.0, rel=5 / math.sqrt(2 * 2000))
    assert noise.charge() == Charge(1.0, 7.0, 1)


def noisy_at(noise: NoisyCount, count: int) -> int:
    return noise.noisy(count, COUNT)


def test_only_an_insecure_seed_can_be_repeated_and_only_at_the_same_address():
    seeded = NoisyCount(multiplier=1e6, insecure_seed=3)
    assert seeded.noisy(5, METRIC, 0) == seeded.noisy(5, METRIC, 0)
    assert seeded.noisy(5, METRIC, 0) != seeded.noisy(5, METRIC, 1)
    assert seeded.noisy(6, METRIC, 0) == seeded.noisy(5, METRIC, 0) + 1
    secret = NoisyCount(multiplier=1e6)
    assert secret.noisy(5, COUNT) != secret.noisy(5, COUNT)


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.inf, math.nan])
def test_a_count_needs_noise(sigma):
    with pytest.raises(ValueError, match="positive sigma"):
        NoisyCount(multiplier=sigma)


def test_held_out_records_pay_for_scores_and_no_others():
    update, count, metric = Charge(0.1, 1.0, 100), Charge(1.0, 5.0, 1), Charge(1.0, 3.0, 4)
    both = by_table([(UPDATE, update), (METRIC, metric), (COUNT, count)])
    assert both == ([update, count], [metric])
    training, held_out = epsilon([update, count], DELTA), epsilon([metric], DELTA)
    assert both.epsilon(DELTA) == max(training, held_out) < epsilon([update, count, metric], DELTA)
    assert by_table([(METRIC, metric)]).epsilon(DELTA) == held_out


@pytest.mark.parametrize("q", [1.0, full(0.1)])
def test_noise_is_calibrated_for_everything_that_the_records_pay(q):
    count = Charge(1.0, 2.0, 1)
    alone = calibrate(3.0, DELTA, lambda sigma: Charge(q, sigma, 50))
    beside = calibrate(3.0, DELTA, lambda sigma: Charge(q, sigma, 50), besides=[count])
    assert beside > alone
    cost = epsilon([count, Charge(q, beside, 50)], DELTA)
    assert 0.99 * 3.0 < cost <= 3.0
    last = epsilon_by_round(Charge(q, beside, 10), 5, DELTA, besides=[count])[-1]
    assert last == pytest.approx(cost, rel=0.01)
    with pytest.raises(ValueError, match=r"cannot be reached.*more count_noise"):
        calibrate(1.0, DELTA, lambda sigma: Charge(q, sigma, 50), besides=[Charge(1.0, 0.5, 1)])


def task(round: int = 0) -> ClientTask:
    from silotune.core import Factors

    return ClientTask(
        run="r",
        round=round,
        client=ClientId("silo-0"),
        factors=Factors({}),
        seeded=None,
        plan=RoundPlan(phases=(), share=frozenset()),
        steps=1,
        learning_rates=(0.1,),
        seed=0,
    )


def owner(tmp_path, **changes):
    releases = Releases(
        count=NoisyCount(multiplier=50.0), metric=NoisyCount(multiplier=50.0), held_out=10
    )
    privacy = ExampleLevel(
        sampling=Poisson(0.5), noise=Gaussian(1.0), max_grad_norm=1.0, expected_batch_size=6.0
    )
    own = {"home": tmp_path, "releases": releases, "privacy": privacy}
    return replace(silos()[ClientId("silo-0")], **(own | changes))


def test_a_number_is_released_once_and_then_again_the_same(tmp_path):
    silo = owner(tmp_path)
    with SiloStore(tmp_path) as store:
        first = noisy_records(task(), silo, store)
        score = noisy_score(task(), silo, store, right=4)
    with SiloStore(tmp_path) as store:  # another process, another round, other records
        more = replace(silo, train=silos(records=500)[ClientId("silo-0")].train)
        assert noisy_records(task(1), more, store) == first
        assert noisy_score(task(), silo, store, right=9) == score
        assert noisy_score(task(1), silo, store, right=4) != score
    assert set(first) == {RECORDS}
    assert (set(score), score[ACCURACY].count) == ({ACCURACY}, 10)
    kept = [(e.release, e.round, e.charge.steps) for e in read_ledger(tmp_path / "ledger.jsonl")]
    assert kept == [(COUNT, 0, 1), (METRIC, 0, 1), (METRIC, 1, 1)]


def test_another_run_pays_for_itself(tmp_path):
    silo = owner(tmp_path)
    with SiloStore(tmp_path) as store:
        noisy_records(task(), silo, store)
        noisy_records(replace(task(), run="s"), silo, store)
        assert [len(store.spent(run)) for run in ("r", "s")] == [1, 1]


def test_a_number_is_charged_before_it_leaves(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("full")

    silo = owner(tmp_path)
    with SiloStore(tmp_path) as store:
        with monkeypatch.context() as patch:
            patch.setattr("silotune.privacy.ledger.ledger.appending", full)
            with pytest.raises(OSError, match="full"):
                noisy_records(task(), silo, store)
        assert store.spent("r") == []
        assert noisy_records(task(), silo, store)


def test_a_budget_is_each_columns_own(tmp_path):
    silo = owner(tmp_path, budget=PrivacyBudget(epsilon=1.0, delta=DELTA))
    with SiloStore(tmp_path) as store:
        cost = Charge(1.0, 5.0, 1)
        assert epsilon([cost], DELTA) < 1.0 < epsilon([cost, cost], DELTA)
        update = LedgerEntry(
            run="r", silo="silo-0", round=0, attempt=0, charge=cost, max_grad_norm=1.0, time="now"
        )
        store.release("r", 0, "task", b"bytes", update)
        poor = replace(silo, releases=replace(silo.releases, count=NoisyCount(multiplier=5.0)))
        assert noisy_records(task(), poor, store) is None
        own = replace(silo, releases=replace(silo.releases, metric=NoisyCount(multiplier=5.0)))
        assert noisy_score(task(), own, store, right=4)
        assert noisy_score(task(1), own, store, right=4) is None
        assert [e.release for e in store.entries("r")] == [UPDATE, METRIC]


def test_a_silo_that_releases_nothing_says_nothing(tmp_path):
    silo = replace(owner(tmp_path), releases=Releases())
    with SiloStore(tmp_path) as store:
        assert noisy_records(task(), silo, store) == noisy_score(task(), silo, store, 4) == {}
        assert store.spent("r") == []


def test_a_line_of_the_ledger_says_which_number_it_paid_for():
    entry = LedgerEntry(
        run="r",
        silo="s",
        round=0,
        attempt=0,
        release=COUNT,
        charge=Charge(1.0, 5.0, 1),
        max_grad_norm=1.0,
        time="now",
        value=-3,
    )
    assert LedgerEntry.parse(entry.to_json()) == entry
    assert "value" not in replace(entry, value=None).to_json()
    with pytest.raises(ValueError, match="whole number"):
        LedgerEntry.parse({**entry.to_json(), "value": 3.5})
