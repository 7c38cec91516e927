"""The states of a real run of a server that hides its clients."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from audit.attacked import noise_alarms, stand
from covering import some
from silotune.audit.checks import failed
from silotune.audit.coins import sampling_checks
from silotune.audit.server_transcript import SERVER, transcribed_server
from silotune.core import ClientMean, Factors
from silotune.privacy import ClientLevel, Correlated, Gaussian, Poisson, Rotation
from silotune.privacy.mechanisms import dp_fedavg
from silotune.privacy.mechanisms.secure_rng import Randomness

pytestmark = pytest.mark.usefixtures("same_secrets")

CENTRAL = ClientLevel(clients=30, sampling=Poisson(0.5), noise=Gaussian(1.0), max_update_norm=0.7)
ROUNDS = 20


def alarms(central: ClientLevel = CENTRAL, method: str = "fedit") -> dict[str, list[str]]:
    found = transcribed_server(central, stand(method).model, ROUNDS)
    cohorts = {SERVER: found.cohorts}
    checks = sampling_checks(cohorts, {SERVER: central}, {SERVER: central.clients}, ROUNDS)
    return {**noise_alarms(list(found.noises)), "cohorts": [c.what for c in failed(checks)]}


@pytest.mark.parametrize(
    "central",
    [
        pytest.param(CENTRAL, id="gaussian"),
        pytest.param(replace(CENTRAL, target_quantile=0.5), id="adaptive", marks=pytest.mark.full),
        pytest.param(
            replace(CENTRAL, sampling=Rotation(3), noise=Correlated(1.0, 2)),
            id="correlated",
            marks=pytest.mark.full,
        ),
    ],
)
def test_the_correct_server_gives_no_alarm(central):
    found = alarms(central)
    assert not any(found.values()), found


@pytest.mark.parametrize("method", some(["rolora", "flora", "xgblora"], "xgblora"))
def test_whatever_is_shared_in_which_round_gives_no_alarm(method):
    found = alarms(method=method)
    assert not any(found.values()), found


def _mean(released, before, changed):
    """The release with some tensors replaced."""
    first = {key: changed(key, t, before.shared.first[key]) for key, t in released.items()}
    return Factors(first)


def faulty(monkeypatch, changed):
    mean = ClientLevel.mean

    def other(self, total, before, draws):
        release = mean(self, total, before, draws)
        first = _mean(release.mean.first, before, partial(changed, before.round))
        return release._replace(mean=ClientMean(first=first, product=release.mean.product))

    monkeypatch.setattr(ClientLevel, "mean", other)


@pytest.mark.full
def test_half_the_noise_on_one_tensor_is_found(monkeypatch):
    def changed(round, key, now, start):
        return start + (now - start) / 2 if key.name == "weight" else now

    faulty(monkeypatch, changed)
    assert alarms()["noise"]


@pytest.mark.full
def test_noise_on_the_first_round_only_is_found(monkeypatch):
    faulty(monkeypatch, lambda round, key, now, start: now if round == 0 else start)
    assert alarms()["noise"]


def test_noise_from_the_public_seed_is_found(monkeypatch):
    def drawn(g, n):
        return torch.from_numpy(np.random.default_rng(0).standard_normal(n))

    from silotune.privacy.mechanisms import noise

    monkeypatch.setattr(noise, "standard_normal", drawn)
    assert alarms()["independence"]


@pytest.mark.full
def test_the_same_draws_in_every_round_are_found(monkeypatch):
    key = Randomness.secret().words(4).tobytes()
    monkeypatch.setattr(Randomness, "secret", classmethod(lambda cls: cls(key)))
    found = alarms()
    assert found["independence"]
    assert found["cohorts"]


def test_a_cohort_of_one_size_is_found(monkeypatch):
    def half(self, clients, draws):
        return sorted(clients[i] for i in np.argsort(draws.coins.words(len(clients)))[:15])

    monkeypatch.setattr(ClientLevel, "cohort", half)
    assert alarms()["cohorts"]


@pytest.mark.full
def test_noise_over_the_cohort_that_came_is_found(monkeypatch):
    mean = ClientLevel.mean
    sizes = iter(range(5, 100))

    def other(self, total, before, draws):
        smaller = replace(self, clients=2 * next(sizes))
        return mean(smaller, total, before, draws)

    monkeypatch.setattr(ClientLevel, "mean", other)
    assert alarms()["noise"]
    assert dp_fedavg.ClientLevel is ClientLevel
