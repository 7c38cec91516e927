"""The audit of a server that hides whole clients."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from silotune.audit.server import audit_server
from silotune.audit.step import Verdict, verdict
from silotune.core import Role, Statistics
from silotune.privacy import Correlated, Gaussian, Poisson, Rotation
from silotune.privacy.accounting.accountant import epsilon
from silotune.privacy.mechanisms.dp_fedavg import ClientLevel
from toys import adapter, random_factors

pytestmark = pytest.mark.usefixtures("same_secrets")

DELTA, CLIENTS = 1e-5, 30


def honest(z: float = 1.0, **changes) -> ClientLevel:
    public = {"clients": CLIENTS, "max_update_norm": 0.7, "sampling": Poisson(1.0)}
    return ClientLevel(**(public | {"noise": Gaussian(z)} | changes))


CLAIM = epsilon([honest().charge()], DELTA)


def judged(central, *, product: bool = False, trials: int = 2000) -> Verdict:
    shared = Statistics.of(random_factors(adapter(), 0).only({Role.A, Role.B}), 1.0)
    shared = shared if product else replace(shared, product={})
    return verdict(audit_server(central, shared, DELTA, trials=trials), CLAIM, DELTA)


@dataclass(frozen=True)
class Wrapped:
    """DP-FedAvg with one thing replaced."""

    central: ClientLevel
    bounded: Callable = ClientLevel.bound
    averaged: Callable = ClientLevel.mean

    def bound(self, sent, before):
        return self.bounded(self.central, sent, before)

    def draws(self, round, past):
        return self.central.draws(round, past)

    def mean(self, total, before, draws):
        return self.averaged(self.central, total, before, draws)

    def clipping_norm(self, memory):
        return self.central.clipping_norm(memory)


def unbounded(central, sent, before):
    return replace(central, max_update_norm=1e9).bound(sent, before)


def layer_by_layer(central, sent, before):
    first = {}
    for key in sent.first:
        others = set(sent.first) - {key}
        one = replace(sent, first=sent.first.without(others))
        alone = before._replace(
            shared=replace(before.shared, first=before.shared.first.without(others))
        )
        first |= central.bound(one, alone).first
    return replace(sent, first=sent.first.updated(first), product={}, weight=1.0)


def over_those_who_came(central, total, before, draws):
    return replace(central, clients=round(total.weight)).mean(total, before, draws)


FAULTS = {
    "half the noise": honest(0.5),
    "no bound": Wrapped(honest(), unbounded),
    "each layer bounded by S": Wrapped(honest(), layer_by_layer),
    "divided by the cohort": Wrapped(honest(), averaged=over_those_who_came),
}


def test_the_correct_server_passes_and_the_audit_had_power():
    assert judged(honest()) is Verdict.PASS


@pytest.mark.full
def test_products_adaptive_clipping_and_correlated_noise_raise_no_alarm():
    assert judged(honest(), product=True, trials=500) is not Verdict.FAIL
    assert judged(honest(target_quantile=0.5), trials=1000) is not Verdict.FAIL
    turns = {"sampling": Rotation(2), "noise": Correlated(1.0, 2)}
    assert judged(honest(**turns), trials=500) is not Verdict.FAIL


SUBTLE = {"half the noise", "each layer bounded by S"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.full if n in SUBTLE else ()) for n in FAULTS],
)
def test_every_fault_is_found(name):
    assert judged(FAULTS[name], trials=1500) is Verdict.FAIL


def test_a_share_that_is_counted_without_noise_is_found():
    """Adaptive clipping tells how many were within S; without noise that is one client's news."""

    def silent_count(central, total, before, draws):
        released = central.mean(total, before, draws)
        exact = replace(central, noise=Gaussian(0.0)).mean(total, before, draws)
        return released._replace(memory=exact.memory)

    telling = Wrapped(honest(target_quantile=0.5), averaged=silent_count)
    assert judged(telling, trials=400) is Verdict.FAIL
