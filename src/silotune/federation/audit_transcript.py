"""The parts of an audit that read transcripts: noise, its independence, coins, and sensitivity."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from silotune.aggregation import Mean
from silotune.audit.checks import Check, failed
from silotune.audit.coins import coins_of, many_coins, rate_of, sampling_checks, times_claimed
from silotune.audit.composition import DELTA, composition_checks
from silotune.audit.correlations import correlation_checks, over_rounds
from silotune.audit.noise_claimed import Noise, in_claimed_units, steps_in_claimed_units, still
from silotune.audit.noise_shape import grid_checks, shape_checks, size, too_few
from silotune.audit.public_seeds import coin_checks, seed_checks
from silotune.audit.sensitivity import Effect, certain, effect_checks, effects
from silotune.audit.server_transcript import SERVER, transcribed_server
from silotune.audit.step import Verdict
from silotune.audit.transcript import Course, Open, Transcript, cycle_of, in_process, transcribed
from silotune.core import Factors, RoundPlan
from silotune.privacy import Discrete, ExampleLevel, Rotation, TruncatedCharge
from silotune.privacy.accounting.accountant import COARSE, epsilon
from silotune.privacy.mechanisms.dp_fedavg import ClientLevel
from silotune.terms import BuiltModel

from .audit_effort import Effort, rounds_for
from .audit_part import Part
from .audit_pool import SilentRun, silent_silos
from .audit_subject import Stand

LEAST_STEPS, MOST_STEPS = 3, 8
"""Of a silo in a round."""

MOST_RECORDS, MOST_IN_ROTATION = 1000, 200
"""Of a silo. Correlated noise reads all of them in every round, to see that they are the same."""

MOST_NUMBERS = 30_000_000
"""Of noise, that are read of all silos together; of two silos at least."""

MOST_PLANS = 4
"""Of a schedule, whose rounds are measured one by one."""

MICRO_BATCH = 16

MANY_STEPS = 1000
"""Whose coins are drawn beside a transcript."""

AGAIN = ", a second time"
"""After the name of a silo that is the only one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Read:
    """A transcript of silent silos and what it is compared with."""

    run: SilentRun
    transcript: Transcript
    noises: Sequence[Noise]
    steps: Sequence[Noise]


def silent_run(
    stand: Stand, silos: Mapping[str, ExampleLevel], sizes: Mapping[str, int], effort: Effort
) -> SilentRun:
    """As many silos and rounds as an audit can afford, with the mechanisms as they are.

    Args:
        stand: what is attacked.
        silos: all mechanisms, by name.
        sizes: declared numbers of records.
        effort: of the audit.
    """
    trained = [t.numel() for t in stand.model.plan.only_trained(stand.model.first).values()]
    steps, rounds = steps_for(stand), rounds_for(min(trained), effort)
    course = Course(rounds=rounds, local_steps=steps, micro_batch=MICRO_BATCH)
    room = MOST_NUMBERS // (rounds * steps * sum(trained))
    chosen = _chosen(silos, min(effort.silos, room))
    rotating = any(isinstance(m.sampling, Rotation) for m in chosen.values())
    most = MOST_IN_ROTATION if rotating else MOST_RECORDS
    records = {name: min(sizes[name.removesuffix(AGAIN)], most) for name in chosen}
    return SilentRun(course=course, records=records, mechanisms=chosen)


def steps_for(stand: Stand) -> int:
    """Local steps until every phase has had its turn, within bounds; several in any case."""
    return min(MOST_STEPS, max(LEAST_STEPS, cycle_of(stand.model.axes.schedule)))


def transcript_parts(stand: Stand, run: SilentRun) -> Iterator[Part]:
    """Noise, independence and sampling of silos that train in this process."""
    with tempfile.TemporaryDirectory() as folder:
        read = read_silent(stand, run, Path(folder))
    yield from parts_of(read, "")
    yield from _grid(stand, run)


def read_silent(stand: Stand, run: SilentRun, folder: Path, opened: Open = in_process) -> Read:
    """Run silos that send noise alone, and compare it with the claim."""
    trainer, silos = silent_silos(stand.model, stand.terms, run, folder)
    transcript = transcribed(stand.model, trainer, silos, run.course, opened=opened)
    noises = in_claimed_units(transcript, run.mechanisms)
    steps = steps_in_claimed_units(transcript, run.mechanisms)
    return Read(run=run, transcript=transcript, noises=noises, steps=steps)


def parts_of(read: Read, where: str) -> Iterator[Part]:
    """What a transcript shows.

    Args:
        read: the transcript.
        where: silos trained, to be said; empty for this process.
    """
    course, silos = read.run.course, read.transcript.silos
    about = (
        f"{len(silos)} silos, {course.rounds} rounds of {course.local_steps} steps of plain SGD"
        f"{where}"
    )
    yield _noise(f"noise{where}", read.noises, still(read.transcript), about)
    yield _steps(f"noise of single steps{where}", read.steps)
    yield _independence(f"independence of the noise{where}", read.noises)
    yield _sampling(f"sampling{where}", read)


def server_parts(central: ClientLevel, model: BuiltModel, effort: Effort) -> Iterator[Part]:
    """Noise, independence and cohorts of a server that hides its clients."""
    smallest = min(t.numel() for t in model.plan.shared(model.first).values())
    transcript = transcribed_server(central, model, rounds_for(smallest, effort))
    about = (
        f"{len(transcript.noises)} rounds of {central.clients} clients that change nothing; "
        "products, where a rule needs them, are not read here"
    )
    yield _noise("noise of the server", transcript.noises, [], about)
    yield _independence("independence of the server's noise", transcript.noises)
    checks = sampling_checks(
        {SERVER: transcript.cohorts},
        {SERVER: central},
        {SERVER: central.clients},
        len(transcript.cohorts),
    )
    text = f"{len(transcript.cohorts)} cohorts of {central.clients} clients"
    yield judged("cohorts", checks, text)


def sensitivity_part(stand: Stand, mechanism: ExampleLevel, *, whole: bool) -> Part:
    """How far one record moves a message, in a round of every plan."""
    model, steps = stand.model, steps_for(stand)
    task = stand.terms.objective
    quiet, found = certain(mechanism), list[Effect]()
    for plan in _plans(model):
        if not stand.routed:
            found += effects(model, quiet, plan, steps)
        if stand.routed or whole:
            rows = task.synthetic(model.loaded.inputs, (8, 5), stand.terms.seed)
            found += effects(model, quiet, plan, steps, (task, rows))
    worst = max((e.measured / e.claimed for e in found), default=0.0)
    unseen = sorted({e.canary for e in found if e.unseen})
    count = f"{len(found)} canaries" if len(found) != 1 else "1 canary"
    where = "through the whole model" if stand.routed else "on every trained tensor and on all"
    text = (
        f"{count} {where}, in rounds of {steps} steps and micro-batches of two: one moves a "
        f"message by at most {worst:.3f} C / b a step"
    )
    if unseen or not found:
        text += f"; not seen at all: {', '.join(unseen) or 'any'}"
    return judged(
        "sensitivity", effect_checks(found), text, blind=bool(unseen) or not found, decides=True
    )


def composition_part(mechanism: ExampleLevel, steps: int, of: str) -> Part:
    """The accountant's price of all steps, beside the privacy loss drawn by its definition.

    Args:
        mechanism: of a silo.
        steps: of the whole run.
        of: the silo's name.
    """
    charge = mechanism.charge(steps)
    if isinstance(charge, TruncatedCharge):
        text = "the loss of truncated samples is not drawn; the tests of the accountant do that"
        return Part(what="composition", verdict=Verdict.NO_POWER, text=text)
    claim = epsilon([charge], DELTA, grid=COARSE)
    text = f"{steps:,} steps of {of} cost no more than epsilon {claim:.3g} at delta {DELTA:g}"
    return judged("composition", composition_checks(charge, claim), text)


def judged(
    what: str,
    checks: Sequence[Check],
    text: str,
    *,
    blind: bool = False,
    decides: bool = False,
) -> Part:
    """A group of checks as a part.

    Args:
        what: its name.
        checks: exact; any of them may fail it.
        text: what was done and found.
        blind: whether something could not have been seen.
        decides: whether the audit has no power if this part has none.
    """
    wrong = failed(checks)
    if wrong:
        worst = wrong[0]
        count = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        text = f"{text}; {worst.what} (chance {worst.chance:.1e}){count}"
        return Part(what=what, verdict=Verdict.FAIL, text=text, decides=decides)
    verdict = Verdict.NO_POWER if blind else Verdict.PASS
    return Part(what=what, verdict=verdict, text=text, decides=decides)


def _noise(what: str, noises: Sequence[Noise], moved: Sequence[str], about: str) -> Part:
    checks = [Check(f"{key} moved although nothing trained it", 0.0) for key in moved]
    few = too_few(noises)
    numbers = sum(len(noise.flat) for noise in noises)
    text = f"{about}; {numbers:,} numbers spread {size(noises):.4f} times as claimed"
    if few:
        text += f"; too few numbers to see half the noise missing on {', '.join(few)}"
    return judged(what, [*checks, *shape_checks(noises)], text, blind=bool(few))


def _steps(what: str, steps: Sequence[Noise]) -> Part:
    """What the accountant prices: every local step by itself."""
    text = f"{len(steps)} steps spread {size(steps):.4f} times as claimed"
    return judged(what, [*shape_checks(steps), *over_rounds(steps)], text)


def _independence(what: str, noises: Sequence[Noise]) -> Part:
    between, seeds = correlation_checks(noises), seed_checks(noises)
    text = (
        f"{len(between):,} comparisons over tensors, rounds and silos, and {len(seeds):,} with "
        "streams that public seeds give"
    )
    return judged(what, [*between, *seeds], text)


def _sampling(what: str, read: Read) -> Part:
    run, transcript = read.run, read.transcript
    steps = run.course.rounds * run.course.local_steps
    checks = sampling_checks(transcript.read, run.mechanisms, run.records, steps)
    text = f"{steps} steps of every silo, and the coins of {MANY_STEPS:,} more"
    rates = []
    for name, mechanism in run.mechanisms.items():
        own = coins_of(transcript.read[name], run.records[name])
        rates.append(times_claimed(own, rate_of(mechanism)))
        if isinstance(mechanism.sampling, Rotation):
            continue
        records = min(run.records[name], MOST_RECORDS)
        long = {f"{name}, in one long round,": many_coins(mechanism, records, MANY_STEPS)}
        claim, size = dict.fromkeys(long, mechanism), dict.fromkeys(long, records)
        checks += sampling_checks(long, claim, size, MANY_STEPS)
        first = transcript.of(name)[0]
        release = next(n for n in read.noises if (n.of, n.round) == (first.silo, first.round))
        checks += coin_checks(own[: run.course.local_steps], release, rate_of(mechanism))
    text += f"; records are read {max(rates):.4f} times as often as claimed"
    return judged(what, checks, text)


def _grid(stand: Stand, run: SilentRun) -> Iterator[Part]:
    """Discrete noise, in rounds that begin at zero, where nothing rounds it on its way."""
    if not any(isinstance(m.noise, Discrete) for m in run.mechanisms.values()):
        return
    course = replace(run.course, rounds=1, local_steps=1)
    once = replace(run, course=course)
    zero = Factors(stand.model.first.map(lambda t: t * 0.0))
    checks: list[Check] = []
    with tempfile.TemporaryDirectory() as folder:
        trainer, silos = silent_silos(stand.model, stand.terms, once, Path(folder))
        transcript = transcribed(stand.model, trainer, silos, course, start=zero, aggregator=Mean())
    for name, mechanism in run.mechanisms.items():
        checks += grid_checks(transcript.of(name), mechanism)
    yield judged("grid of the noise", checks, "discrete noise, as it was sent")


def _plans(model: BuiltModel) -> list[RoundPlan]:
    """Those that differ, of the first rounds."""
    schedule, sites = model.axes.schedule, tuple(model.trainer.adapted.layers)
    plans: dict[str, RoundPlan] = {}
    for round in range(8):
        plan = schedule.plan(round, sites)
        plan = replace(plan, share=plan.trained(), fixed=plan.fixed | model.fixed, fold=False)
        plans.setdefault(str(plan.outline()), plan)
    return list(plans.values())[:MOST_PLANS]


def _chosen(silos: Mapping[str, ExampleLevel], most: int) -> dict[str, ExampleLevel]:
    """Those with the least noise; two at least, if need be of the one mechanism."""
    by_noise = sorted(silos, key=lambda name: silos[name].noise.multiplier)
    names = by_noise[: max(2, most)]
    if len(names) == 1:
        return {names[0]: silos[names[0]], names[0] + AGAIN: silos[names[0]]}
    return {name: silos[name] for name in names}
