"""An audit from configuration or run folder to its verdict."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from by_config import of_config, of_run
from covering import some
from federation.small import PRIVATE, notes, small, train, write_csv
from silotune.audit import canary_run
from silotune.audit.step import Verdict
from silotune.federation import audit as auditing
from silotune.federation import audit_pool, audit_subject
from silotune.federation.audit import audit, conclusion
from silotune.federation.audit_effort import SHORT
from silotune.federation.audit_part import Part
from silotune.federation.audit_subject import secret_mechanisms, small_model
from silotune.federation.audit_transcript import silent_run
from silotune.federation.workers import audit_worker
from silotune.privacy import (
    Correlated,
    Discrete,
    ExampleLevel,
    Gaussian,
    Poisson,
    Rotation,
    TruncatedPoisson,
)
from silotune.privacy.accounting.accountant import COARSE, epsilon
from silotune.runs.folder import RunFolder

pytestmark = pytest.mark.usefixtures("same_secrets")

pytestmark = pytest.mark.usefixtures("same_secrets")

DELTA = 1e-5


def private(place: Path, *more: str):
    return small(place, *PRIVATE, *more)


QUICK = replace(SHORT, trials=300, rounds=(6, 12))
"""Enough for everything but certainty of power."""


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(canary_run, "ENOUGH_CANARIES", 900)


def test_no_record_is_read_if_everything_is_declared(place):
    subject = of_config(private(place, "data.path=nowhere.csv"))
    assert subject.sizes == {"east": 20, "west": 20}
    assert subject.labels == ("cat", "dog")


def test_names_and_sizes_are_looked_up_if_not(place):
    write_csv(place.parent / "notes.csv", notes(300))
    subject = of_config(small(place, PRIVATE[0]))
    assert subject.sizes.keys() == {"east", "west"}
    assert all(size in (250, 260, 270) for size in subject.sizes.values())


def test_every_part_of_a_configuration_is_audited(place, quick):
    parts = {part.what: part for part in audit(of_config(private(place)), QUICK)}
    assert list(parts) == [
        "coverage",
        "noise",
        "noise of single steps",
        "independence of the noise",
        "sampling",
        "grid of the noise",
        "sensitivity",
        "worker processes",
        "composition",
        "step, calibrated",
        "pipeline, calibrated",
        "pipeline, as configured",
    ]
    assert all(part.verdict is not Verdict.FAIL for part in parts.values())
    attacks = [part for part in parts.values() if part.claimed is not None]
    assert len(attacks) == 3
    assert all(part.measured <= part.claimed for part in attacks)
    assert parts["step, calibrated"].claimed == pytest.approx(3.139, abs=0.01)  # mu 1, delta 1e-3
    assert "322 numbers" in parts["coverage"].text
    assert "2 silos, 12 rounds of 3 steps" in parts["noise"].text
    assert "classifier.head.bias" in parts["noise"].text  # two numbers in twelve rounds
    assert parts["noise"].verdict is parts["worker processes"].verdict is Verdict.NO_POWER
    assert parts["sensitivity"].verdict is Verdict.PASS
    assert "--thorough" in parts["worker processes"].text


def test_a_tensor_without_noise_fails_the_audit(place, quick, monkeypatch):
    """In the real code: the last tensor that trains, a head's weight."""
    noised = ExampleLevel.noised

    def all_but_one(self, tensors, clipped, draws):
        noised(self, tensors, clipped, draws)
        last = [*tensors][-1]
        if last in clipped.sums:
            sums = clipped.sums[last] / self.expected_batch_size
            tensors[last].grad = sums.to(tensors[last].dtype)

    monkeypatch.setattr(ExampleLevel, "noised", all_but_one)
    parts = until("noise", of_config(private(place)), QUICK)
    assert parts["noise"].verdict is Verdict.FAIL
    assert "classifier.head.weight" in parts["noise"].text


def test_what_workers_are_told_makes_the_same_silos(place, tmp_path):
    subject = of_config(private(place))
    stand = small_model(subject, tmp_path / "model")
    asked = silent_run(stand, secret_mechanisms(subject), subject.sizes, QUICK)
    audit_pool.write_orders(
        tmp_path, stand.terms, subject.labels, subject.federation.machine, asked
    )
    trainer, silos = audit_pool.ordered_silos(tmp_path)
    assert {name: silo.privacy for name, silo in silos.items()} == asked.mechanisms
    assert {name: len(silo.train.lengths) for name, silo in silos.items()} == asked.records
    assert trainer.adapted.tensors.keys() == stand.model.trainer.adapted.tensors.keys()


@pytest.mark.full
def test_silos_in_worker_processes_are_audited(place, monkeypatch):
    monkeypatch.setattr(audit_pool, "WORKERS", 1)  # one takes seconds to start
    found = pool_parts(place, audit_worker)
    assert all(part.verdict is not Verdict.FAIL for part in found.values()), found
    assert "in worker processes" in found["noise in worker processes"].text


@pytest.mark.full
def test_a_stream_that_workers_share_is_found(place):
    """Each worker begins with the same key, as two forks of one process do."""

    def sharing(federation):
        return [sys.executable, str(Path(__file__).parent / "sharing_worker.py")]

    found = pool_parts(place, sharing)
    shared = found["independence of the noise in worker processes"]
    assert shared.verdict is Verdict.FAIL
    assert "same rounds" in shared.text or "and of" in shared.text


def pool_parts(place, worker) -> dict[str, Part]:
    subject = of_config(private(place))
    effort = replace(QUICK, pool=True, rounds=(2, 2))
    return until("sampling in worker processes", subject, effort, worker(subject.federation))


def until(last: str, *asked: object) -> dict[str, Part]:
    """The parts of an audit by name, up to that one."""
    parts = {}
    for part in audit(*asked):
        parts[part.what] = part
        if part.what == last:
            break
    return parts


def test_what_other_processes_cannot_open_is_said(place, quick):
    subject = of_config(private(place))
    parts = until("worker processes", subject, replace(QUICK, pool=True))
    assert parts["worker processes"].verdict is Verdict.NO_POWER
    assert "no worker" in parts["worker processes"].text


def test_discrete_noise_is_read_from_its_grid(place, quick):
    config = private(place, "privacy.noise=discrete")
    parts = until("grid of the noise", of_config(config), QUICK)
    assert parts["grid of the noise"].verdict is Verdict.PASS


def test_a_run_is_audited_against_its_certificate(place, tmp_path, quick, monkeypatch):
    monkeypatch.setattr(auditing, "MOST_DELTA", 1e-3)
    config = private(place, "train.num_rounds=2")
    train(config)
    subject = of_run(RunFolder(Path(config.output_dir)))
    assert subject.certificate is not None
    assert secret_mechanisms(subject)["west"].noise.multiplier == 2.0
    stand = small_model(subject, tmp_path)
    last = auditing._configured_run(secret_mechanisms(subject), stand.model, subject)
    assert last.claimed == subject.certificate.silos["east"].epsilon
    assert last.measured <= last.claimed
    assert "all 4 steps" in last.text


def test_noise_from_a_seed_is_no_privacy(place):
    first = next(audit(of_config(private(place, "privacy.insecure_seeded_noise=true"))))
    assert (first.what, first.verdict) == ("secrecy", Verdict.FAIL)


def test_a_server_that_hides_clients_is_audited(place, quick):
    hidden = "privacy={unit: client, noise_multiplier: 2, target_delta: 1e-3}"
    config = small(place, hidden, "train.weighting=uniform", PRIVATE[1])
    parts = list(audit(of_config(config), QUICK))
    assert [part.what for part in parts] == [
        "model",
        "noise of the server",
        "independence of the server's noise",
        "cohorts",
        "server, calibrated",
    ]
    assert all(part.verdict is not Verdict.FAIL for part in parts)


def test_without_a_claim_there_is_nothing_to_audit(place):
    with pytest.raises(ValueError, match=r"unit: none"):
        next(audit(of_config(small(place))))


def test_a_tiny_model_stands_in_for_a_large_one(place, tmp_path, monkeypatch):
    monkeypatch.setattr(audit_subject, "MOST_TRAINED", 10)
    subject = of_config(private(place, "method.target_modules=[query]"))
    stand = small_model(subject, tmp_path / "other")
    assert "a tiny model that trains the same roles" in stand.about
    assert {str(role) for role in stand.model.axes.schedule.plan(0).trained()} == {"B", "head"}


def part(verdict: Verdict, *, decides: bool) -> Part:
    return Part(what="", verdict=verdict, text="", decides=decides)


def test_one_failure_fails_and_only_what_decides_needs_power():
    good = part(Verdict.PASS, decides=True)
    assert conclusion([good, part(Verdict.NO_POWER, decides=False)]) is Verdict.PASS
    assert conclusion([good, part(Verdict.NO_POWER, decides=True)]) is Verdict.NO_POWER
    assert conclusion([good, part(Verdict.FAIL, decides=False)]) is Verdict.FAIL


KINDS = {
    "poisson": (Poisson(0.4), Gaussian(2.0)),
    "discrete": (Poisson(0.4), Discrete(2.0)),
    "truncated": (TruncatedPoisson(0.4, 8, 20), Gaussian(2.0)),
    "rotation": (Rotation(2), Correlated(2.0, 2)),
}


@pytest.fixture
def mechanism(place, request):
    sampling, noise = KINDS[request.param]
    honest = secret_mechanisms(of_config(private(place)))["east"]
    return canary_run.calibrated(replace(honest, sampling=sampling, noise=noise))


def run(place, tmp_path, mechanism):
    model = small_model(of_config(private(place)), tmp_path).model
    steps = canary_run.CALIBRATED_STEPS
    truncated = isinstance(mechanism.sampling, TruncatedPoisson)
    relation = "zero-out" if truncated else "add-remove"
    claim = epsilon([mechanism.charge(steps)], DELTA, relation=relation, grid=COARSE)
    return claim, canary_run.smoke(model, mechanism, steps, claim, DELTA)


@pytest.mark.parametrize("mechanism", some(KINDS, "truncated"), indirect=True)
def test_a_run_of_the_pipeline_tells_something_but_not_too_much(place, tmp_path, mechanism):
    claim, guesses = run(place, tmp_path, mechanism)
    assert guesses.canaries >= canary_run.ENOUGH_CANARIES
    assert 0.2 < guesses.epsilon <= claim < guesses.most


@pytest.mark.parametrize("mechanism", ["poisson"], indirect=True)
def test_a_pipeline_that_forgets_the_noise_sets_off_the_alarm(
    place, tmp_path, mechanism, monkeypatch
):
    source = Gaussian.source
    monkeypatch.setattr(Gaussian, "source", lambda self, g, start: source(Gaussian(0.1), g, start))
    claim, guesses = run(place, tmp_path, mechanism)
    assert guesses.epsilon > claim


@pytest.mark.parametrize("mechanism", ["poisson"], indirect=True)
def test_a_pipeline_that_loses_its_records_gives_no_power(place, tmp_path, mechanism, monkeypatch):
    monkeypatch.setattr(Poisson, "batches", lambda self, records, steps, draws: [[]] * steps)
    _, guesses = run(place, tmp_path, mechanism)
    assert guesses.epsilon == 0.0
