"""The audit sees every seeded fault, and never one where there is none."""

import math

import pytest
import torch

from audit.faults import BOUND, FAULTS, SIZE, Faulty, clipped, honest, unclipped
from covering import full, some
from silotune.audit.lower_bounds import Bounds
from silotune.audit.step import TRIALS, Attack, Verdict, audit_step, verdict
from silotune.core import Role
from silotune.privacy import Charge, Correlated, Discrete, ExampleLevel, Gaussian, Rotation
from silotune.privacy.accounting.accountant import epsilon
from silotune.privacy.mechanisms import dp_sgd as mechanism
from silotune.privacy.mechanisms.clipping import Accumulated
from toys import CLASSIFY, adapted, adapter, first_factors, notes

pytestmark = pytest.mark.usefixtures("same_secrets")

DELTA = 1e-5
CLAIM = epsilon([Charge(1.0, 1.0, 1)], DELTA)
ROLES = {Role.B, Role.HEAD}


def model():
    made = adapted(adapter())
    made.load(first_factors(adapter()))
    return made


def attacks(privacy, roles=ROLES, trials=TRIALS, **more) -> list[Attack]:
    return audit_step(privacy, model(), roles, DELTA, trials=trials, **more)


def test_the_claim_is_that_of_mu_1():
    assert pytest.approx(4.377, abs=2e-3) == CLAIM


def correlated() -> ExampleLevel:
    return ExampleLevel(
        sampling=Rotation(4),
        noise=Correlated(1.0, 3),
        max_grad_norm=BOUND,
        expected_batch_size=SIZE,
    )


def discrete() -> ExampleLevel:
    return ExampleLevel(
        sampling=honest().sampling,
        noise=Discrete(1.0),
        max_grad_norm=BOUND,
        expected_batch_size=SIZE,
    )


def test_the_correct_mechanism_passes_and_the_audit_had_power():
    found = attacks(honest(), {Role.B}, trials=1500)
    assert verdict(found, CLAIM, DELTA) is Verdict.PASS
    assert found[0].bounds.mu > 0.5


@pytest.mark.parametrize(
    ("trials", "power"),
    [(300, 0.0), pytest.param(1000, 0.2, marks=pytest.mark.full)],
)
@pytest.mark.parametrize("make", [discrete, full(correlated), full(Faulty)])
def test_other_correct_mechanisms_raise_no_alarm(make, trials, power):
    """``Faulty`` without a fault, too: it is the mistakes that are found, not the class."""
    found = attacks(make(), {Role.B}, trials=trials)
    assert verdict(found, epsilon([make().charge(1)], DELTA), DELTA) is not Verdict.FAIL
    assert found[0].bounds.mu >= power


@pytest.mark.parametrize("roles", [full({Role.HEAD}), full({Role.A, Role.B}), set(Role)])
def test_it_works_whatever_is_trained(roles):
    """Heads and adapters are also attacked alone where both are trained."""
    found = attacks(honest(), roles, trials=300)
    assert len(found) == (3 if roles == set(Role) else 1)
    assert verdict(found, CLAIM, DELTA) is not Verdict.FAIL


@pytest.mark.full
def test_a_canary_may_go_through_the_whole_model():
    whole = (CLASSIFY, notes(3).batch([0, 1, 2]))
    honestly = attacks(honest(), trials=300, whole=whole)
    openly = attacks(Faulty(unclipped), trials=300, whole=whole)
    assert verdict(honestly[-1:], CLAIM, DELTA) is not Verdict.FAIL
    assert verdict(openly[-1:], CLAIM, DELTA) is Verdict.FAIL


SUBTLE = {
    "each layer clipped to C": (ROLES, 1500),
    "pairs averaged before clipping": ({Role.B}, 1500),
    "the batch sum clipped": ({Role.B}, 1500),
    "half the noise": ({Role.B}, 800),
    "clipped to 2 C": ({Role.B}, 800),
}
"""They make a canary twice as visible at most, and need more trials for certainty."""


@pytest.mark.parametrize(
    "name", some(FAULTS, "no clipping", "divided by the records drawn", "no noise on the head")
)
def test_every_fault_is_found(name):
    roles, trials = SUBTLE.get(name, (ROLES, 300))
    assert verdict(attacks(FAULTS[name], roles, trials), CLAIM, DELTA) is Verdict.FAIL


def test_half_the_noise_is_found_in_the_real_code(monkeypatch):
    source = Gaussian.source
    monkeypatch.setattr(Gaussian, "source", lambda self, g, start: source(Gaussian(0.5), g, start))
    assert verdict(attacks(honest(), {Role.B}, trials=700), CLAIM, DELTA) is Verdict.FAIL


def test_noise_that_is_always_the_same_is_found(monkeypatch):
    draws = ExampleLevel.draws
    monkeypatch.setattr(ExampleLevel, "draws", lambda self, seed, past: draws(self, 7, past))
    seeded = ExampleLevel(
        sampling=honest().sampling,
        noise=Gaussian(1.0),
        max_grad_norm=BOUND,
        expected_batch_size=SIZE,
        insecure_seed=0,
    )
    assert verdict(attacks(seeded, {Role.B}, trials=400), CLAIM, DELTA) is Verdict.FAIL


def test_gradients_left_unclipped_are_found_in_the_real_code(monkeypatch):
    def forgetful(sink, losses, micro_batches, max_grad_norm, grid=0.0):
        return accumulate(sink, losses, micro_batches, math.inf, grid)

    accumulate = mechanism.accumulate
    monkeypatch.setattr(mechanism, "accumulate", forgetful)
    assert verdict(attacks(honest(), {Role.B}, trials=400), CLAIM, DELTA) is Verdict.FAIL


def test_a_sum_of_nothing_gives_no_power(monkeypatch):
    """A mechanism that ignores its records is private and useless; no pass is given for that."""

    def deaf(sink, losses, micro_batches, max_grad_norm, grid=0.0):
        return Accumulated({}, 0, 0)

    monkeypatch.setattr(mechanism, "accumulate", deaf)
    assert verdict(attacks(honest(), {Role.B}, trials=400), CLAIM, DELTA) is Verdict.NO_POWER


def attack(mu: float, gaussian: float, free: float = 0.0) -> Attack:
    bounds = Bounds(mu=mu, gaussian=gaussian, distribution_free=free)
    return Attack(canary="test", trials=10, bounds=bounds)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([attack(0.0, 0.0)], Verdict.NO_POWER),
        ([attack(0.49, 1.95)], Verdict.NO_POWER),
        ([attack(0.51, 2.0)], Verdict.PASS),
        ([attack(0.51, 2.0), attack(0.0, 0.0)], Verdict.PASS),
        ([attack(0.51, 2.0), attack(1.01, 4.43)], Verdict.FAIL),
        ([attack(0.0, 0.0, free=4.5)], Verdict.FAIL),
    ],
)
def test_the_verdict_asks_whether_half_the_noise_would_have_shown(found, expected):
    assert verdict(found, CLAIM, DELTA) is expected


def test_the_model_is_left_as_it_was():
    made = model()
    made.model.train()
    before = made.extract()
    audit_step(honest(), made, ROLES, DELTA, trials=4)
    assert made.model.training
    assert made.extract().digest() == before.digest()
    assert all(p.grad is None for p in made.tensors.values())


def test_the_plain_clipping_of_the_faults_is_right():
    g = torch.Generator().manual_seed(0)
    rows = {
        key: torch.randn(5, *t.shape, generator=g) for key, t in first_factors(adapter()).items()
    }
    norms = torch.stack([r.flatten(1).norm(dim=1) for r in clipped(rows).values()]).norm(dim=0)
    torch.testing.assert_close(norms, torch.full((5,), BOUND))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_200_audits_without_a_false_alarm():
    """With fewer trials than an audit has; the level of a bound does not depend on them."""
    audits = [attacks(honest(), trials=500) for _ in range(200)]
    assert all(verdict(found, CLAIM, DELTA) is not Verdict.FAIL for found in audits)
    assert max(a.bounds.mu for found in audits for a in found) <= 1.0
