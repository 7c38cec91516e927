"""Audit: the mechanisms of a configuration, or of a finished run, attacked with canaries.

No private record is read: canaries are made up. What is attacked is the code that trains (loop,
sink, clipping, noise, ledger, messages, server, workers) with the clipping norm, denominator, kinds
of sampling and noise, and the trained tensors of the configuration.

First come transcripts (``audit.transcript``): what several silos sent over several rounds is
compared with what it must be, by exact tests that decide. Then attacks, which bound epsilon from
below without asking what the mechanism is. They show most where a single step tells much, so the
parts that decide are calibrated: noise of one clipping norm (mu = 1), and every record in the
batch, or every second one. The last part takes noise and rate as they are.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from silotune.audit.canary_run import CALIBRATED_NOISE, CALIBRATED_STEPS, calibrated, smoke
from silotune.audit.coins import rate_of
from silotune.audit.one_run import Guesses
from silotune.audit.server import audit_server
from silotune.audit.step import Attack, Verdict, audit_step, verdict
from silotune.certificate.guarantee import SEEDED
from silotune.core import Statistics
from silotune.privacy import ExampleLevel, Poisson, Relation, Rotation, TruncatedPoisson
from silotune.privacy.accounting.accountant import COARSE, epsilon
from silotune.privacy.mechanisms.dp_fedavg import ClientLevel
from silotune.runs.privacy_statement import SiloPrivacy
from silotune.terms import BuiltModel

from .audit_effort import SHORT, Effort
from .audit_part import Part
from .audit_pool import SilentRun, pooled, write_orders
from .audit_subject import (
    Stand,
    Subject,
    calibrated_server,
    secret_mechanisms,
    secret_server,
    small_model,
)
from .audit_transcript import (
    composition_part,
    parts_of,
    read_silent,
    sensitivity_part,
    server_parts,
    silent_run,
    transcript_parts,
)

MOST_WHOLE = 2_000_000
"""Numbers in all; with more, no canary goes through the whole model."""

MOST_STEPS = 300
"""Of the one-run audit with noise and rate as configured."""

MOST_DELTA = 1e-5
"""Of the one-run audits: a larger one would blur what so few canaries show."""

IN_PROCESS = (
    "not audited: silos trained in this process, so a fault of workers alone, such as a stream "
    "that two of them share, would not have shown; --thorough starts them, reads more silos and "
    "rounds, and sends canaries through the whole model"
)
"""What a short audit has no power to see."""

ROUTED = (
    "not audited: what a router passes on depends on the whole prompt, so no canary can be aimed "
    "at one number; noise, coins and sensitivity were read from whole messages above"
)
"""Why the one-run audits are left out."""


def audit(subject: Subject, effort: Effort = SHORT, worker: Sequence[str] = ()) -> Iterator[Part]:
    """Every part, one after another.

    Args:
        subject: what is audited.
        effort: how deep the audit goes.
        worker: the command that starts a worker of the audit's pool, without the folder.

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
            central = secret_server(subject)
            stand = small_model(subject, Path(folder))
            yield Part(what="model", verdict=Verdict.PASS, text=stand.about)
            yield from server_parts(central, stand.model, effort)
            yield _server(calibrated_server(central), stand.model, privacy.target_delta, effort)
            return
        silos = secret_mechanisms(subject)
        stand = small_model(subject, Path(folder))
        yield Part(what="coverage", verdict=Verdict.PASS, text=stand.about)
        run = silent_run(stand, silos, subject.sizes, effort)
        yield from transcript_parts(stand, run)
        first = next(iter(run.mechanisms.values()))
        yield sensitivity_part(stand, first, whole=_through_all(stand, effort))
        if effort.pool or subject.federation.in_workers:
            yield from _pool(stand, run, subject, worker)
        else:
            yield Part(what="worker processes", verdict=Verdict.NO_POWER, text=IN_PROCESS)
        name = _most_exposed(silos)
        yield composition_part(silos[name], _planned(subject, name), name)
        yield _step(first, stand, effort)
        if stand.routed:
            yield Part(what="pipeline", verdict=Verdict.NO_POWER, text=ROUTED)
            return
        yield _calibrated_run(first, stand.model)
        yield _configured_run(silos, stand.model, subject)


def conclusion(parts: Sequence[Part]) -> Verdict:
    """The verdict of the whole."""
    if any(part.verdict is Verdict.FAIL for part in parts):
        return Verdict.FAIL
    weak = any(part.decides and part.verdict is Verdict.NO_POWER for part in parts)
    return Verdict.NO_POWER if weak else Verdict.PASS


def _pool(stand: Stand, run: SilentRun, subject: Subject, worker: Sequence[str]) -> Iterator[Part]:
    """The transcript once more, from processes of the pool."""
    if stand.given or not worker:
        why = "the model is an object of this program" if stand.given else "there is no worker"
        text = f"not audited: {why}, and other processes cannot open it"
        yield Part(what="worker processes", verdict=Verdict.NO_POWER, text=text)
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        machine = subject.federation.machine.settled()
        write_orders(place, stand.terms, subject.labels, machine, run)
        read = read_silent(stand, run, place, pooled(worker, place))
    yield from parts_of(read, " in worker processes")


def _through_all(stand: Stand, effort: Effort) -> bool:
    """Whether a canary goes through the whole model."""
    return effort.whole or stand.routed or stand.model.total <= MOST_WHOLE


def _step(mechanism: ExampleLevel, stand: Stand, effort: Effort) -> Part:
    """The two-world audit, calibrated. Silos differ in nothing that plays a part in it."""
    model, task = stand.model, stand.terms.objective
    delta = stand.terms.hiding.target_delta
    privacy = replace(mechanism, noise=replace(mechanism.noise, multiplier=1.0))
    if not isinstance(mechanism.sampling, Rotation):
        privacy = replace(privacy, sampling=Poisson(1.0))
    claim = epsilon([privacy.charge(1)], delta)
    batch = task.synthetic(model.loaded.inputs, (8, 5, 6), stand.terms.seed)
    attacks = audit_step(
        privacy,
        model.trainer.adapted,
        model.axes.trained(),
        delta,
        trials=effort.trials,
        whole=(task, batch) if _through_all(stand, effort) else None,
    )
    return _attacked("step, calibrated", "one step at μ = 1", attacks, claim, delta)


def _server(central: ClientLevel, model: BuiltModel, delta: float, effort: Effort) -> Part:
    """The two-world audit of the server, calibrated."""
    shared = Statistics.of(model.plan.shared(model.first), 1.0)
    if not model.axes.aggregator.needs_product:
        shared = replace(shared, product={})
    attacks = audit_server(central, shared, delta, trials=effort.trials)
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
        text=f"{about}, {attacks[0].trials:,} times with and without a canary on {canaries}; at "
        f"least {gaussian:.3g} (Gaussian), {free:.3g} (distribution-free)",
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
    name = _most_exposed(silos)
    stated = subject.certificate.silos[name] if subject.certificate else None
    total = (stated.steps if stated else 0) or _planned(subject, name)  # taken, or else planned
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


def _most_exposed(silos: Mapping[str, ExampleLevel]) -> str:
    """The silo whose records show most."""
    return max(silos, key=lambda s: rate_of(silos[s]) / max(silos[s].noise.multiplier, 1e-9))


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


def _planned(subject: Subject, name: str) -> int:
    """Steps of a silo in all rounds."""
    terms = subject.terms
    return terms.rounds * terms.steps_of(subject.sizes[name])


def _epsilon(silo: SiloPrivacy) -> float:
    return silo.epsilon if silo.epsilon_if_secret is None else silo.epsilon_if_secret
