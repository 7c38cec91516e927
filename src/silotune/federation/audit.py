"""Audit: the mechanisms of a configuration, or of a finished run, attacked with canaries.

No private record is read: canaries are made up. What is attacked is the code that trains (sink,
clipping, noise, ledger, messages, server) with the clipping norm, denominator, kinds of sampling
and noise, and the trained tensors of the configuration. An attack shows most where a single step
tells much, so the parts that decide are calibrated: noise of one clipping norm (mu = 1), and every
record in the batch, or every second one. The last part takes noise and rate as they are.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from silotune.audit.canary_run import CALIBRATED_NOISE, CALIBRATED_STEPS, calibrated, rate, smoke
from silotune.audit.distribution_tests import Check, coins_check, noise_check, turns_check
from silotune.audit.one_run import Guesses
from silotune.audit.server import audit_server
from silotune.audit.step import TRIALS, Attack, Verdict, audit_step, verdict
from silotune.certificate.guarantee import SEEDED
from silotune.core import Statistics
from silotune.privacy import ExampleLevel, Poisson, Relation, Rotation, TruncatedPoisson
from silotune.privacy.accounting.accountant import COARSE, epsilon
from silotune.privacy.mechanisms.dp_fedavg import ClientLevel
from silotune.runs.privacy_statement import SiloPrivacy
from silotune.terms import BuiltModel, Terms

from .audit_subject import Subject, calibrated_server, secret_mechanisms, small_model

MOST_WHOLE = 2_000_000
"""Numbers in all; with more, no canary goes through the whole model."""

MOST_STEPS = 300
"""Of the one-run audit with noise and rate as configured."""

MOST_DELTA = 1e-5
"""Of the one-run audits: a larger one would blur what so few canaries show."""

UNLIKELY = 1e-6
"""A check fails if its result had less chance than this."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One thing that was looked at.

    Attributes:
        what: its name.
        verdict: of this part.
        text: what was done and found.
        claimed: epsilon that must not be exceeded; None where the part is no attack.
        measured: a lower bound on it that holds with 99 % confidence.
        delta: of both.
        decides: whether the audit has no power if this part has none.
    """

    what: str
    verdict: Verdict
    text: str
    claimed: float | None = None
    measured: float | None = None
    delta: float | None = None
    decides: bool = False


def audit(subject: Subject) -> Iterator[Part]:
    """Every part, one after another; under a minute on a tiny model.

    Raises:
        ValueError: in words, naming the key of the configuration.
    """
    if not subject.terms.private:
        raise ValueError("unit: none; nothing is claimed that an audit could check")
    privacy = subject.terms.hiding
    if privacy.insecure_seeded_noise:
        yield Part(what="secrecy", verdict=Verdict.FAIL, text=SEEDED)
    with tempfile.TemporaryDirectory() as folder:
        if privacy.unit == "client":
            central = calibrated_server(subject)
            model, about = small_model(subject, Path(folder))
            yield Part(what="model", verdict=Verdict.PASS, text=about)
            yield _server(central, model, privacy.target_delta)
            return
        silos = secret_mechanisms(subject)
        model, about = small_model(subject, Path(folder))
        yield Part(what="coverage", verdict=Verdict.PASS, text=about)
        for name, mechanism in _different(silos).items():
            yield from _checks(name, mechanism, model)
        yield _step(next(iter(silos.values())), model, subject.terms)
        yield _calibrated_run(next(iter(silos.values())), model)
        yield _configured_run(silos, model, subject)


def conclusion(parts: Sequence[Part]) -> Verdict:
    """The verdict of the whole."""
    if any(part.verdict is Verdict.FAIL for part in parts):
        return Verdict.FAIL
    weak = any(part.decides and part.verdict is Verdict.NO_POWER for part in parts)
    return Verdict.NO_POWER if weak else Verdict.PASS


def _different(silos: Mapping[str, ExampleLevel]) -> dict[str, ExampleLevel]:
    """One silo for each mechanism; silos that share one are named together."""
    names = dict[ExampleLevel, list[str]]()
    for name, mechanism in silos.items():
        names.setdefault(mechanism, []).append(name)
    return {", ".join(same): mechanism for mechanism, same in names.items()}


def _checks(name: str, mechanism: ExampleLevel, model: BuiltModel) -> Iterator[Part]:
    """Noise and sampling of a silo, as configured."""
    roles = model.axes.trained()
    sigma, sampling = mechanism.noise.multiplier, mechanism.sampling
    std = sigma * mechanism.max_grad_norm / mechanism.expected_batch_size
    noise = noise_check(mechanism, model.trainer.adapted, roles, std)
    yield _check(
        f"noise of {name}",
        noise,
        f"{noise.draws:,} numbers with no record in the batch spread {noise.measured:.4f} times as "
        f"claimed (σ = {sigma:.4g})",
    )
    match sampling:
        case Rotation(turns):
            coins = turns_check(mechanism, turns, records=1000)
            text = (
                f"{coins.measured:.0%} of 1,000 records have one turn in {turns}, always the same"
            )
        case TruncatedPoisson(q, largest, places):
            coins = coins_check(mechanism, q, records=places, steps=100, largest=largest)
            text = f"{coins.measured:.4f} times as often drawn as claimed (q = {q:.4g}, cut)"
        case Poisson(q):
            coins = coins_check(mechanism, q, records=1000, steps=1000)
            text = (
                f"{coins.draws:,} coins came up {coins.measured:.4f} times as often as claimed "
                f"(q = {q:.4g}), and batches vary in size as they must"
            )
    yield _check(f"sampling of {name}", coins, text)


def _check(what: str, check: Check, text: str) -> Part:
    failed = check.chance < UNLIKELY
    about = f"{text}; chance of so bad a result {check.chance:.1e}" if failed else text
    return Part(what=what, verdict=Verdict.FAIL if failed else Verdict.PASS, text=about)


def _step(mechanism: ExampleLevel, model: BuiltModel, terms: Terms) -> Part:
    """The two-world audit, calibrated. Silos differ in nothing that plays a part in it."""
    delta = terms.hiding.target_delta
    privacy = replace(mechanism, noise=replace(mechanism.noise, multiplier=1.0))
    if not isinstance(mechanism.sampling, Rotation):
        privacy = replace(privacy, sampling=Poisson(1.0))
    claim = epsilon([privacy.charge(1)], delta)
    trainer, task = model.trainer, terms.objective
    batch = task.synthetic(model.loaded.inputs, (8, 5, 6), terms.seed)
    attacks = audit_step(
        privacy,
        trainer.adapted,
        model.axes.trained(),
        delta,
        trials=TRIALS,
        whole=(task, batch) if model.total <= MOST_WHOLE else None,
    )
    return _attacked("step, calibrated", "one step at μ = 1", attacks, claim, delta)


def _server(central: ClientLevel, model: BuiltModel, delta: float) -> Part:
    """The two-world audit of the server, calibrated."""
    shared = Statistics.of(model.plan.shared(model.first), 1.0)
    if not model.axes.aggregator.needs_product:
        shared = replace(shared, product={})
    attacks = audit_server(central, shared, delta, trials=TRIALS)
    about = f"one round of all {central.clients} clients at μ = {1 / central.noise_multiplier:.3g}"
    return _attacked(
        "server, calibrated", about, attacks, epsilon([central.charge()], delta), delta
    )


def _attacked(what: str, about: str, attacks: Sequence[Attack], claim: float, delta: float) -> Part:
    gaussian = max(a.bounds.gaussian for a in attacks)
    free = max(a.bounds.distribution_free for a in attacks)
    canaries = ", ".join(a.canary for a in attacks)
    return Part(
        what=what,
        verdict=verdict(attacks, claim, delta),
        text=f"{about}, {TRIALS:,} times with and without a canary on {canaries}; at least "
        f"{gaussian:.3g} (Gaussian), {free:.3g} (distribution-free)",
        claimed=claim,
        measured=max(gaussian, free),
        delta=delta,
        decides=True,
    )


def _calibrated_run(mechanism: ExampleLevel, model: BuiltModel) -> Part:
    privacy, steps = calibrated(mechanism), CALIBRATED_STEPS
    relation: Relation = "add-remove"
    if isinstance(privacy.sampling, TruncatedPoisson):
        relation = "zero-out"
    claim = epsilon([privacy.charge(steps)], MOST_DELTA, relation=relation, grid=COARSE)
    guesses = smoke(model, privacy, steps, claim, MOST_DELTA)
    about = f"runs of {steps} steps at σ = {CALIBRATED_NOISE:g}, every second record in each"
    return _run("pipeline, calibrated", guesses, claim, about, decides=True)


def _configured_run(silos: Mapping[str, ExampleLevel], model: BuiltModel, subject: Subject) -> Part:
    """Of the silo whose records show most; a run's claim is that of its certificate."""
    privacy = subject.terms.hiding
    name = max(silos, key=lambda s: rate(silos[s]) / max(silos[s].noise.multiplier, 1e-9))
    stated = subject.certificate.silos[name] if subject.certificate else None
    total = _steps(stated, subject.terms)
    steps, delta = min(MOST_STEPS, total), min(MOST_DELTA, privacy.target_delta)
    if stated and (stated.steps, stated.delta) == (steps, delta):
        claim = _epsilon(stated)
    else:
        charge = silos[name].charge(steps)
        claim = epsilon([charge], delta, relation=privacy.relation, grid=COARSE)
    guesses = smoke(model, silos[name], steps, claim, delta)
    of = f"{steps:,} of {total:,}" if steps < total else f"all {total:,}"
    about = (
        f"{of} steps of {name} with its own noise and rate; all that the method trains moves in "
        "every one, whatever its schedule"
    )
    return _run("pipeline, as configured", guesses, claim, about)


def _run(what: str, guesses: Guesses, claim: float, about: str, *, decides: bool = False) -> Part:
    """No power if nothing was recognised, or if even perfect guesses would refute nothing."""
    measured = guesses.epsilon
    verdict = Verdict.FAIL if measured > claim else Verdict.PASS
    blind = measured == 0.0 or guesses.most <= claim
    return Part(
        what=what,
        verdict=Verdict.NO_POWER if blind else verdict,
        text=f"{about}; of {guesses.canaries:,} canaries, {guesses.right} of the {guesses.spoken} "
        "clearest guesses were right",
        claimed=claim,
        measured=measured,
        delta=guesses.delta,
        decides=decides,
    )


def _steps(stated: SiloPrivacy | None, terms: Terms) -> int:
    """As many as were taken; as are planned, if none were."""
    return (stated.steps if stated else 0) or terms.rounds * terms.local_steps


def _epsilon(silo: SiloPrivacy) -> float:
    return silo.epsilon if silo.epsilon_if_secret is None else silo.epsilon_if_secret
