"""An audit from configuration or run folder to its verdict."""

from dataclasses import replace
from pathlib import Path

import pytest

from by_config import of_config, of_run
from federation.small import PRIVATE, notes, small, train, write_csv
from silotune.audit import canary_run
from silotune.audit.step import Verdict
from silotune.federation import audit as auditing
from silotune.federation import audit_subject
from silotune.federation.audit import Part, audit, conclusion
from silotune.federation.audit_subject import secret_mechanisms, small_model
from silotune.privacy import Correlated, Discrete, Gaussian, Poisson, Rotation, TruncatedPoisson
from silotune.privacy.accounting.accountant import COARSE, epsilon
from silotune.runs.folder import RunFolder

DELTA = 1e-5


def private(place: Path, *more: str):
    return small(place, *PRIVATE, *more)


@pytest.fixture
def quick(monkeypatch):
    """Fewer trials and canaries: enough for everything but certainty of power."""
    monkeypatch.setattr(auditing, "TRIALS", 300)
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
    parts = {part.what: part for part in audit(of_config(private(place)))}
    assert list(parts) == [
        "coverage",
        "noise of east, west",
        "sampling of east, west",
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


def test_a_run_is_audited_against_its_certificate(place, quick, monkeypatch):
    monkeypatch.setattr(auditing, "MOST_DELTA", 1e-3)
    config = private(place, "train.num_rounds=2")
    train(config)
    subject = of_run(RunFolder(Path(config.output_dir)))
    assert subject.certificate is not None
    assert secret_mechanisms(subject)["west"].noise.multiplier == 2.0
    *_, last = audit(subject)
    assert last.claimed == subject.certificate.silos["east"].epsilon
    assert last.measured <= last.claimed
    assert "all 4 steps" in last.text


def test_noise_from_a_seed_is_no_privacy(place):
    first = next(audit(of_config(private(place, "privacy.insecure_seeded_noise=true"))))
    assert (first.what, first.verdict) == ("secrecy", Verdict.FAIL)


def test_a_server_that_hides_clients_is_audited(place, quick):
    hidden = "privacy={unit: client, noise_multiplier: 2, target_delta: 1e-3}"
    parts = list(audit(of_config(small(place, hidden, "train.weighting=uniform", PRIVATE[1]))))
    assert [part.what for part in parts] == ["model", "server, calibrated"]
    assert parts[-1].verdict is not Verdict.FAIL


def test_without_a_claim_there_is_nothing_to_audit(place):
    with pytest.raises(ValueError, match=r"unit: none"):
        next(audit(of_config(small(place))))


def test_a_tiny_model_stands_in_for_a_large_one(place, tmp_path, monkeypatch):
    monkeypatch.setattr(audit_subject, "MOST_TRAINED", 10)
    subject = of_config(private(place, "method.target_modules=[query]"))
    model, said = small_model(subject, tmp_path / "other")
    assert "a tiny model that trains the same roles" in said
    assert {str(role) for role in model.axes.schedule.plan(0).trained()} == {"B", "head"}


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
    model, _ = small_model(of_config(private(place)), tmp_path)
    steps = canary_run.CALIBRATED_STEPS
    truncated = isinstance(mechanism.sampling, TruncatedPoisson)
    relation = "zero-out" if truncated else "add-remove"
    claim = epsilon([mechanism.charge(steps)], DELTA, relation=relation, grid=COARSE)
    return claim, canary_run.smoke(model, mechanism, steps, claim, DELTA)


@pytest.mark.parametrize("mechanism", KINDS, indirect=True)
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
