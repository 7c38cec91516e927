"""Transcripts of real runs: every seeded fault is found, and never one where there is none."""

from dataclasses import replace

import numpy as np
import pytest

from audit.attacked import LABELS, SILOS, alarms, course, sensitivity_alarms, stand, transcript
from audit.faults import HALF, NOISE, SAMPLING, SENSITIVITY, SIZE, Faulty, honest
from covering import full, some
from silotune.audit.checks import failed
from silotune.audit.coins import many_coins, sampling_checks
from silotune.audit.noise_claimed import covariance, in_claimed_units
from silotune.audit.noise_shape import too_few
from silotune.audit.sensitivity import TINY, certain, effects
from silotune.core import Role
from silotune.engine import client as engine_client
from silotune.privacy import Correlated, Discrete, Gaussian, Poisson, Rotation, TruncatedPoisson
from silotune.privacy.mechanisms import matrix_factorization
from silotune.privacy.mechanisms.matrix_factorization import sqrt_coefficients

pytestmark = pytest.mark.usefixtures("same_secrets")

METHODS = ("ffa-lora", "fedit", "la-lora", "fedsa-lora", "rolora", "xgblora", "fedsvd", "flora")

KINDS = {
    "gaussian": HALF,
    "discrete": replace(HALF, noise=Discrete(1.0)),
    "truncated": replace(HALF, sampling=TruncatedPoisson(0.5, 20, 24)),
    "rotation": replace(HALF, sampling=Rotation(4), noise=Correlated(1.0, 3)),
}


@pytest.mark.parametrize("kind", some(KINDS, "gaussian", "rotation"))
def test_the_correct_mechanism_gives_no_alarm(kind, tmp_path):
    found = alarms(KINDS[kind], lambda silo: KINDS[kind], tmp_path)
    assert not any(found.values()), found


@pytest.mark.parametrize("method", some(METHODS[1:], "rolora"))
def test_whatever_trains_in_which_round_gives_no_alarm(method, tmp_path):
    found = alarms(HALF, lambda silo: HALF, tmp_path, method)
    assert not any(found.values()), found


@pytest.mark.parametrize(
    "name",
    some(
        NOISE,
        "from task.seed",
        "the same at every silo",
        "none on the head's bias",
        "Laplace",
        "none at one silo",
    ),
)
def test_every_fault_of_the_noise_is_found(name, tmp_path):
    made, part = NOISE[name]
    assert alarms(HALF, made, tmp_path)[part]


@pytest.mark.parametrize("name", some(SAMPLING, "a rate too high", "coins from task.seed"))
def test_every_fault_of_the_coins_is_found(name, tmp_path):
    assert alarms(HALF, SAMPLING[name], tmp_path)["sampling"]


@pytest.mark.parametrize(
    "name",
    some(
        SENSITIVITY,
        "one A left out of the norm",
        "the second phase not clipped",
        "the micro-batch's sum clipped",
        "no clipping",
    ),
)
def test_every_fault_of_clipping_is_found(name):
    clip, method = SENSITIVITY[name]
    assert sensitivity_alarms(Faulty(clip, sigma=TINY), method)


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("gaussian", "fedit"),
        ("gaussian", "dora"),
        *(full(kind, "fedit") for kind in KINDS if kind != "gaussian"),
    ],
)
def test_one_record_moves_a_message_by_the_bound(kind, method):
    """All canaries: the bound is reached, so that hardly more would have shown."""
    own = stand(method).model
    found = effects(own, certain(KINDS[kind]), own.plan, 3)
    assert len(found) == 1 + len(own.plan.only_trained(own.first))
    assert all(0.98 < e.measured / e.claimed <= 1.02 for e in found), found


@pytest.mark.parametrize("method", some(["la-lora", "rolora"], "la-lora"))
def test_phases_are_measured_one_by_one(method):
    assert not sensitivity_alarms(certain(HALF), method)
    assert not sensitivity_alarms(Faulty(sigma=TINY), method)


def test_a_denominator_that_counts_records_moves_further():
    assert sensitivity_alarms(Faulty(denominator=float, sigma=TINY))


@pytest.mark.full
def test_correlated_noise_of_another_matrix_is_found(tmp_path, monkeypatch):
    """Coefficients 1, 1/2, 1/4 in place of the square root's."""

    def other(bands):
        return 0.5 ** np.arange(bands)

    monkeypatch.setattr(matrix_factorization, "sqrt_coefficients", other)
    claimed = KINDS["rotation"]
    found = alarms(claimed, lambda silo: claimed, tmp_path, rounds=40)
    assert found["steps"]


def test_correlated_noise_that_is_begun_again_in_every_round_is_found(tmp_path, monkeypatch):
    source = Correlated.source
    monkeypatch.setattr(Correlated, "source", lambda self, g, start: source(self, g, 0))
    claimed = KINDS["rotation"]
    found = alarms(claimed, lambda silo: claimed, tmp_path)
    assert found["noise"] or found["independence"]


def test_what_is_folded_without_noise_is_found(tmp_path, monkeypatch):
    """Rounds that fold send the tensors that the round began with."""
    seal = engine_client.seal

    def plain(shared, task, start):
        return seal(start if task.plan.fold else shared, task, start)

    monkeypatch.setattr(engine_client, "seal", plain)
    assert alarms(HALF, lambda silo: HALF, tmp_path, "flora")["noise"]


def test_half_the_noise_in_the_real_code_is_found(tmp_path, monkeypatch):
    source = Gaussian.source
    monkeypatch.setattr(Gaussian, "source", lambda self, g, start: source(Gaussian(0.5), g, start))
    assert alarms(HALF, lambda silo: HALF, tmp_path)["noise"]


def test_tensors_that_no_step_trains_must_not_move(tmp_path):
    """Under la-lora a step that trains all roles at once moves what it should not."""
    own = transcript("rolora", dict.fromkeys(SILOS, HALF), tmp_path)
    trained = [{key.role for key, n in m.steps.items() if n} for m in own.of("east")]
    assert {frozenset(r) for r in trained} == {
        frozenset({Role.A, Role.HEAD}),
        frozenset({Role.B, Role.HEAD}),
    }


@pytest.mark.full
def test_a_tensor_of_few_numbers_needs_more_rounds(tmp_path):
    claims = dict.fromkeys(SILOS, HALF)
    many = in_claimed_units(transcript("ffa-lora", claims, tmp_path, 45), claims)
    few = [noise for noise in many if noise.round < 4]
    assert too_few(few) == ["classifier.head.bias"]
    assert too_few(many) == []


def test_the_covariance_of_rounds_is_that_of_the_square_root():
    c = sqrt_coefficients(3)
    lower = sum(np.diag(np.full(6 - k, c[k]), -k) for k in range(3))
    noise = np.linalg.inv(lower)
    sums = noise[::2] + noise[1::2]
    np.testing.assert_allclose(covariance(3, 3, 2), sums @ sums.T)


def test_several_micro_batches_make_a_step(tmp_path):
    own = transcript("ffa-lora", dict.fromkeys(SILOS, honest()), tmp_path, 2)
    assert own.read["east"] == [list(range(24))] * 6
    assert course("ffa-lora").micro_batch < 24


def test_a_rate_that_is_a_little_too_high_shows_in_a_million_coins():
    rare = replace(HALF, sampling=Poisson(0.02))
    sampled = replace(HALF, sampling=Poisson(0.022))
    size, claim = {"east": 1000}, {"east": rare}
    fair = sampling_checks({"east": many_coins(rare, 1000, 1000)}, claim, size, 1000)
    more = sampling_checks({"east": many_coins(sampled, 1000, 1000)}, claim, size, 1000)
    assert not failed(fair)
    assert failed(more)


def test_the_real_rate_is_read_from_the_records(tmp_path):
    own = transcript("ffa-lora", dict.fromkeys(SILOS, HALF), tmp_path, 8)
    sizes = [len(step) for steps in own.read.values() for step in steps]
    assert 8 < np.mean(sizes) < 16
    assert HALF.expected_batch_size == SIZE
    assert LABELS == ("cat", "dog")
    assert HALF.sampling == Poisson(0.5)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_200_audits_without_a_false_alarm(tmp_path):
    """Transcripts of all four kinds of mechanism, and every canary."""
    for i in range(200):
        kind = list(KINDS)[i % len(KINDS)]
        found = alarms(KINDS[kind], lambda silo, kind=kind: KINDS[kind], tmp_path / str(i))
        assert not any(found.values()), (i, kind, found)
        assert not sensitivity_alarms(certain(KINDS[kind]))
