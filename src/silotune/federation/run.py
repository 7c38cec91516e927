"""Run: a configuration becomes a result folder, one whole round after another.

A round is on the disk before the next one begins: its charges, then metrics, then the checkpoint.
So a killed run continues from its last checkpoint, and what the record holds beyond it is cut off.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace

from silotune.certificate.circumstances import Circumstances, counted
from silotune.certificate.issue import NOTHING_CLAIMED, Bound
from silotune.certificate.statement import statement
from silotune.core import GlobalState, accumulated
from silotune.core.expert_matrix import parameter_of
from silotune.core.files import json_text, write_json, write_text
from silotune.engine import EVERY_CLIENT, Experiment, Round, Server
from silotune.engine.checkpoint import load as load_checkpoint
from silotune.engine.checkpoint import save as save_checkpoint
from silotune.engine.loop import make_tasks, one_round
from silotune.linalg import norm
from silotune.objectives.base import loss_settings, source_prefix
from silotune.objectives.registry import is_known, told_pooling
from silotune.privacy.accounting.accountant import COARSE, FINE
from silotune.privacy.ledger.noisy_counts import by_table
from silotune.reports.totals import outcome
from silotune.reports.trackers import Tracked
from silotune.runs.digests import digest_of_facts, digest_of_observed, digests_of
from silotune.runs.facts import SILO_ALONE, Summary
from silotune.runs.folder import RoundRecord, RunFolder
from silotune.runs.privacy_statement import PrivacyStatement
from silotune.terms import Agreement

from .adapter_check import check_learned
from .built import BuiltFederation, now
from .description import Description
from .joining import joined
from .keeping import append_round
from .opening import OpenRun
from .round_noise import round_noise
from .scoring import Scores, last_score, released_scores, score, score_tests_at_home
from .tracking import Trackers, parameters, tracking
from .trained_models import TrainedModels, is_personal, learned_from
from .written_models import save_adapters, write_cards


def rounds(job: OpenRun) -> Iterator[RoundRecord]:
    """Train what is left, yielding the record of each round once it is safe on the disk.

    Raises:
        QuorumError: if too few silos took part.
        ValueError: if a tracker is not installed.
    """
    with _tracking(job) as trackers:
        for record in _rounds(job):
            trackers.tell(record)
            yield record


def _tracking(job: OpenRun) -> AbstractContextManager[Trackers]:
    names = job.built.federation.report_to
    tracked = Tracked(
        run=job.facts.run,
        folder=job.folder,
        parameters=parameters(summary(job.built)) if names else {},
        first=job.state.round + 1 if job.state.round else 0,
    )
    seeded = getattr(job.built.terms.privacy, "insecure_seeded_noise", False)
    return tracking(names, tracked, "epsilon if noise were secret" if seeded else "epsilon")


def _rounds(job: OpenRun) -> Iterator[RoundRecord]:
    built, folder, facts = job.built, job.folder, job.facts
    agreement, state = built.agreement, job.state
    experiment, bound = agreement.experiment(facts.run), Bound(facts=digest_of_facts(facts))
    certificate: PrivacyStatement | None = None
    if state.round == 0:
        append_round(folder, first := _before(job, state))
        yield first
    server = _server(agreement, folder)
    while state.round < experiment.rounds:
        if joined(job):
            experiment = job.built.agreement.experiment(facts.run)
            bound, certificate = Bound(facts=digest_of_facts(job.facts)), None
        start = time.monotonic()
        done = one_round(experiment, job.runtime, state, server)
        seconds = time.monotonic() - start
        scores = _scores(job, experiment, done.state)
        job.books.collect()
        if job.sites:
            job.sites.settle()
        record = _record(job, experiment, state, done, seconds, scores)
        append_round(folder, record)
        certificate = _certificate(job, bound, grid=COARSE, before=certificate)
        _write_privacy(folder, certificate)
        save_checkpoint(folder.state, done.state, facts.run, facts.config_digest, job.keep)
        yield record
        state = done.state


def finish(
    job: OpenRun,
    baseline: Mapping[str, Mapping[str, float]] | None = None,
    status: str = "finished",
) -> None:
    """Score the last state once more on the test records and write adapter, card and page.

    What draws is imported here: it takes a second, and a worker or a plan draws nothing.

    Args:
        job: its rounds are done, or cannot go on.
        baseline: metrics of each silo training alone, if the configuration asks for them.
        status: for ``run.json``.
    """
    from silotune.reports.page import render

    built, folder = job.built, job.folder
    state = load_checkpoint(folder.state).state
    learned = _learned(job, state)
    if built.terms.evaluation == "site":
        score_tests_at_home(built, learned, folder)
    if job.sites and built.terms.unit == "example":
        job.sites.hear()
    job.books.collect()
    if job.sites:
        job.sites.settle()
    save_adapters(built.agreement, folder, learned, job.facts.started)
    at, known = job.scored or (-1, None)
    scored = last_score(built, learned, job.measure, known if at == state.round else None)
    facts = replace(
        job.facts,
        status=status,
        finished=now(),
        baselines={SILO_ALONE: baseline} if baseline else {},
        final=scored.metrics if scored and scored.part == "test" else {},
        scored=scored,
        averaged=built.agreement.averaged(state),
        adapter_check=check_learned(built.agreement.model, built.terms, learned),
        ledgers=job.books.heads() if built.terms.private else {},
    )
    totals = outcome(folder.read_rounds(), facts.metric)
    facts = replace(facts, worse_than_before=totals.worse)
    certificate = _certificate(job, Bound(files=digests_of(folder)), grid=FINE)
    if certificate:  # the two are bound to each other
        facts = replace(facts, observed=digest_of_observed(certificate))
        certificate = replace(certificate, facts=digest_of_facts(facts))
    _write_privacy(folder, certificate)
    description = summary(built)
    write_cards(folder, learned, description, facts, certificate)
    write_json(folder.run, facts.to_json())
    write_text(folder.report, render(folder, description))
    if job.sites:
        job.sites.deliver(built.agreement, built.agreement.result(state))


def exhausted(job: OpenRun) -> list[str]:
    """Accounts (silos, or every client) whose budget cannot pay for one more round."""
    agreement = job.built.agreement
    if agreement.budget is None:
        return []
    job.books.follow()

    def one_more_fits(name: str) -> bool:
        charge, budget = agreement.price(name), agreement.budget_of(name)
        charges = by_table((line.release, line.charge) for line in job.books.account(name)).training
        return budget is None or budget.affords([*charges, charge] if charge else charges)

    return [name for name in job.books.chains if not one_more_fits(name)]


def stop(job: OpenRun, status: str) -> None:
    """Note in ``run.json`` why a run is not finished; its checkpoint stays."""
    write_json(job.folder.run, replace(job.facts, status=status).to_json())


def described(federation: Description) -> Circumstances:
    """How a run is made, as far as epsilon does not cover it."""
    records = federation.records
    return Circumstances(
        baselines=federation.baselines,
        limited=records.limit is not None,
        dealt=records.dealt,
        composed=records.person is not None,
        counted=() if records.elsewhere else counted(federation.terms, vars(records)),
        recorded=federation.lifetime.record,
        at_sites=bool(records.elsewhere),
    )


def summary(built: BuiltFederation) -> Summary:
    """What reports say of the run."""
    federation, terms, model = built.federation, built.terms, built.agreement.model
    method, objective, adapter = terms.method, terms.objective, model.axes.adapter
    targets = sorted({parameter_of(site.name).rpartition(".")[2] for site in model.sites})
    simulated = terms.evaluation == "simulation"
    split = {name: silo.summary for name, silo in built.data.silos.items()}
    return Summary(
        title=federation.title,
        base_model=terms.model,
        task=objective.task,
        method=method.name,
        method_title=method.full_title,
        method_words=method.description,
        rank=adapter.rank if adapter else 0,
        lora_alpha=method.lora_alpha,
        target_modules=", ".join(targets) if adapter else "none",
        data=federation.records.place,
        num_rounds=terms.rounds,
        local_steps=built.agreement.most_steps,
        local_epochs=terms.local_epochs,
        batch_size=terms.batch_size,
        optimizer=terms.moved_by,
        evaluation=terms.evaluation,
        pooling=told_pooling(objective, model.loaded.model),
        head=objective.head,
        max_length=objective.max_length,
        parts=tuple(objective.columns),
        constants=objective.constants,
        source_prefix=source_prefix(objective),
        loss=loss_settings(objective) if is_known(objective) else {},
        personal=is_personal(model),
        fits_peft=adapter is None or adapter.fits_peft,
        quantization=terms.quantization,
        products=terms.products,
        split=split if simulated else {},
    )


def _learned(job: OpenRun, state: GlobalState) -> TrainedModels:
    """What the run would give, were this its last state."""
    built = job.built
    here = [] if job.sites else list(built.agreement.sizes)
    result = built.agreement.result(state)
    return learned_from(result, built.agreement.model, job.folder, job.facts.run, here)


def _before(job: OpenRun, state: GlobalState) -> RoundRecord:
    scores = score(job.built, _learned(job, state), job.measure)
    return RoundRecord(round=-1, metrics=scores.overall, silos=scores.silos)


def _scores(job: OpenRun, experiment: Experiment, state: GlobalState) -> Scores:
    """Of a state, where it is due; silos that score at home are asked to."""
    built = job.built
    if not built.terms.scored(state.round):
        return Scores()
    if built.terms.evaluation != "site":
        found = score(built, _learned(job, state), job.measure)
        job.scored = state.round, found
        return found
    tasks = make_tasks(experiment, job.runtime.clients(), built.agreement.result(state))
    return released_scores(tasks, job.runtime.evaluate(tasks))


def _record(
    job: OpenRun,
    experiment: Experiment,
    before: GlobalState,
    done: Round,
    seconds: float,
    scores: Scores,
) -> RoundRecord:
    built, pooled, change = job.built, done.pooled, update_norm(before, done.state)
    noise = round_noise(experiment, built.agreement.mechanisms, before, pooled.clients)
    return RoundRecord(
        round=before.round,
        seconds=_told(seconds, built.agreement),
        bytes_up=pooled.bytes_up,
        bytes_down=done.bytes_down,
        clients=pooled.clients,
        missing={str(client): why for client, why in pooled.missing.items()},
        aggregation_error=done.aggregation_error,
        epsilon=job.books.spent(),
        metrics=scores.overall,
        silos=scores.silos,
        update_norm=change,
        noise_to_signal=noise.to_signal(change) if noise else None,
    )


def _told(seconds: float, agreement: Agreement) -> float:
    """How long a round took, as far as it is told.

    Under client-level privacy not at all, as it tells how many took part; where records are hidden
    in whole seconds, as the digits below show what a machine did with them.
    """
    if agreement.server.private:
        return math.nan
    return float(math.ceil(seconds)) if agreement.terms.private else seconds


def update_norm(before: GlobalState, after: GlobalState) -> float:
    """Euclidean norm of what a round changed: tensors, and what it added to the base.

    Tensors that a seed draws are left out: a fresh pair says nothing of what was learned. What was
    folded of the pair before them had been counted as it was learned, but for this round. Pairs of
    another rank than before count whole.
    """
    moved = after.factors.without(after.drawn.keys())
    redrawn = {k.site for k, seed in after.drawn.items() if before.drawn.get(k) != seed}
    known = {site: before.factors.pair(site) * -1.0 for site in redrawn}
    folded = accumulated(after.latest.folded, {s: m for s, m in known.items() if m.left.any()})
    squares = [norm(matrix) ** 2 for matrix in folded.values()]
    for key, tensor in moved.items():
        old = before.factors[key]
        change = tensor - old if old.shape == tensor.shape else tensor
        squares.append(change.double().square().sum())
    return math.sqrt(sum(map(float, squares)))


def _certificate(
    job: OpenRun, bound: Bound, *, grid: float, before: PrivacyStatement | None = None
) -> PrivacyStatement | None:
    """As the ledgers stand; the fine grid takes seconds.

    Args:
        job: whose ledgers they are.
        bound: what else it is of.
        grid: of the privacy loss.
        before: this process's last one, of the same agreement, for what has not changed since.
    """
    run = job.facts.run
    accounts = job.accounts if grid <= FINE else {}  # while the run goes on, nobody asks
    ledgers = {
        name: [(line.release, line.charge) for line in job.books.account(name)] for name in accounts
    }
    return statement(
        job.built.agreement,
        described(job.built.federation),
        run,
        job.books.chains,
        grid=grid,
        bound=bound,
        elsewhere={name: own.elsewhere(run, ledgers[name]) for name, own in accounts.items()},
        told=job.sites.told if job.sites else None,
        before=before,
    )


def _write_privacy(folder: RunFolder, certificate: PrivacyStatement | None) -> None:
    text = certificate.to_text() if certificate else json_text(NOTHING_CLAIMED)
    write_text(folder.privacy, text)


def _server(agreement: Agreement, folder: RunFolder) -> Server | None:
    """What the server owns; None where it hides nobody."""
    if not agreement.server.private:
        return None
    return Server(home=folder.server, budget=agreement.budget_of(EVERY_CLIENT))
