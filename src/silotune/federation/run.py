"""Run: a configuration becomes a result folder, one whole round after another.

A round is on the disk, metrics first and then the checkpoint, before the next one begins. So a
killed run continues from its last checkpoint, and what the record holds beyond it is cut off.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from silotune.adapters import save_own, save_peft
from silotune.certificate.issue import NOTHING_CLAIMED
from silotune.certificate.statement import ledgers, spent, statement
from silotune.config import Config, digest
from silotune.core import GlobalState, accumulated
from silotune.core.files import write_json, write_lines, write_text
from silotune.engine import Experiment, Round, Server, federate
from silotune.engine.checkpoint import load as load_checkpoint
from silotune.engine.checkpoint import save as save_checkpoint
from silotune.engine.loop import make_tasks
from silotune.linalg import norm
from silotune.privacy.accounting.accountant import COARSE, FINE, epsilon
from silotune.privacy.ledger.noisy_counts import by_table
from silotune.reports.model_card import model_card, signpost
from silotune.reports.page import render
from silotune.reports.totals import outcome
from silotune.runs.facts import SILO_ALONE, RunFacts, Summary
from silotune.runs.folder import RoundRecord, RunFolder

from .build import BuiltModel
from .federation import Federation, build_experiment
from .mechanisms import budget, scored
from .opening import Run, now, state_file
from .scoring import Scores, measured, readable, released_scores, score
from .trained_models import ModelState, TrainedModels, is_personal, learned_from, own_adapter


def rounds(job: Run) -> Iterator[RoundRecord]:
    """Train what is left, yielding the record of each round once it is safe on the disk.

    Raises:
        QuorumError: if too few silos took part.
    """
    workshop, folder = job.workshop, job.folder
    config, state = workshop.config, job.state
    experiment = build_experiment(
        config, workshop.model, workshop.sizes, job.facts.run, workshop.central
    )
    if state.round == 0:
        folder.append_round(first := _before(job, state))
        yield first
    start = time.monotonic()
    for done in federate(experiment, job.runtime, state, _server(config, folder)):
        seconds = time.monotonic() - start
        record = _record(job, state, done, seconds, _scores(job, experiment, done.state))
        folder.append_round(record)
        _write_privacy(job, grid=COARSE)  # the fine one takes seconds
        save_checkpoint(state_file(folder), done.state, job.facts.run, digest(config))
        yield record
        state, start = done.state, time.monotonic()


def finish(
    job: Run,
    baseline: Mapping[str, Mapping[str, float]] | None = None,
    status: str = "finished",
) -> None:
    """Score the last state once more on the test records and write adapter, card and page.

    Args:
        job: its rounds are done, or cannot go on.
        baseline: metrics of each silo training alone, if the configuration asks for them.
        status: for ``run.json``.
    """
    workshop, folder = job.workshop, job.folder
    state, _, _ = load_checkpoint(state_file(folder))
    learned = _learned(job, state)
    facts = replace(
        job.facts,
        status=status,
        finished=now(),
        baselines={SILO_ALONE: baseline} if baseline else {},
        final=_final(workshop, learned),
    )
    export_adapters(workshop, folder, learned, facts)
    _write_privacy(job, grid=FINE)
    write_json(folder.run, facts.to_json())
    write_text(folder.report, render(folder, summary(workshop)))
    if "tensorboard" in workshop.config.report_to:
        from silotune.reports.tensorboard import write_events

        write_events(folder)


def exhausted(job: Run) -> list[str]:
    """Accounts (silos, or every client) whose budget cannot pay for one more round."""
    workshop, limit = job.workshop, budget(job.workshop.config)
    if limit is None:
        return []
    entries = ledgers(workshop, job.folder, job.facts.run)

    def after_one_more(name: str) -> float:
        charge = workshop.price(name)
        charges = by_table((entry.release, entry.charge) for entry in entries[name]).training
        after = [*charges, charge] if charge else charges
        return epsilon(after, limit.delta, relation=workshop.config.privacy.relation)

    return [name for name in entries if after_one_more(name) > limit.epsilon]


def stop(job: Run, status: str) -> None:
    """Note in ``run.json`` why a run is not finished; its checkpoint stays."""
    write_json(job.folder.run, replace(job.facts, status=status).to_json())


def export_adapters(
    workshop: Federation, folder: RunFolder, learned: TrainedModels, facts: RunFacts
) -> None:
    """Write ``adapter/``: PEFT's two files, or our own, and the model card.

    Silos' own models are written into their own folders, and into ``adapter/`` where they are.
    """
    totals = outcome(folder.read_rounds(), facts.metric)
    said = statement(workshop, facts.run, ledgers(workshop, folder, facts.run))
    card = model_card(summary(workshop), facts, totals, said)
    places = {own_adapter(folder, silo): model for silo, model in learned.own.items()}
    if learned.shared is not None:
        places[folder.adapter] = learned.shared
    for place, model in places.items():
        _save(workshop.model, model, place)
        write_text(place / "README.md", card)
    if learned.shared is None:
        folder.adapter.mkdir(parents=True, exist_ok=True)
        write_text(folder.adapter / "README.md", signpost(summary(workshop)))


def summary(workshop: Federation) -> Summary:
    """What reports say of the configuration."""
    config = workshop.config
    method, train, model = config.method.build(), config.train, config.model
    targets = sorted({site.name.rpartition(".")[2] for site in workshop.model.sites})
    simulated = config.evaluation == "simulation"
    split = {name: silo.summary for name, silo in workshop.data.silos.items()}
    adapter = workshop.model.recipe.adapter
    return Summary(
        title=f"{model.name_or_path.rstrip('/').rpartition('/')[2]}, {method.label}",
        base_model=model.name_or_path,
        task=model.task,
        method=method.name,
        method_title=method.full_title,
        method_words=method.description,
        rank=adapter.rank if adapter else 0,
        lora_alpha=method.lora_alpha,
        target_modules=", ".join(targets) if adapter else "none",
        data=config.data.path,
        num_rounds=train.num_rounds,
        local_steps=train.local_steps,
        batch_size=train.batch_size,
        optimizer=f"{train.optimizer}, learning rate {train.learning_rate:g}",
        evaluation=config.evaluation,
        pooling=model.pooling,
        head=model.head,
        max_length=config.data.max_length,
        personal=is_personal(workshop.model),
        fits_peft=adapter is None or adapter.fits_peft,
        split=split if simulated else {},
    )


def _learned(job: Run, state: GlobalState) -> TrainedModels:
    workshop = job.workshop
    return learned_from(state, workshop.model, job.folder, job.facts.run, list(workshop.sizes))


def _save(model: BuiltModel, numbers: ModelState, place: Path) -> None:
    """PEFT's two files, or our own where PEFT has no words for the adapter."""
    if model.recipe.adapter and not model.recipe.adapter.fits_peft:
        save_own(place, numbers.factors)
        return
    save_peft(
        place, numbers.factors, model.recipe.adapter, model.sites, model.layout, numbers.folded
    )


def _before(job: Run, state: GlobalState) -> RoundRecord:
    scores = score(job.workshop, _learned(job, state))
    return RoundRecord(round=-1, metrics=scores.overall, silos=scores.silos)


def _scores(job: Run, experiment: Experiment, state: GlobalState) -> Scores:
    """Of a state, where it is due; silos that score at home are asked to."""
    workshop = job.workshop
    if not scored(workshop.config, state.round):
        return Scores()
    if workshop.config.evaluation != "site":
        return score(workshop, _learned(job, state))
    tasks = make_tasks(experiment, job.runtime.clients(), state)
    return released_scores(tasks, job.runtime.evaluate(tasks))


def _record(
    job: Run, before: GlobalState, done: Round, seconds: float, scores: Scores
) -> RoundRecord:
    workshop, pooled = job.workshop, done.pooled
    return RoundRecord(
        round=before.round,
        seconds=math.nan if workshop.central.private else seconds,  # it tells how many took part
        bytes_up=pooled.bytes_up,
        bytes_down=done.bytes_down,
        clients=pooled.clients,
        missing={str(client): why for client, why in pooled.missing.items()},
        aggregation_error=done.aggregation_error,
        epsilon=spent(workshop, ledgers(workshop, job.folder, job.facts.run)),
        metrics=scores.overall,
        silos=scores.silos,
        update_norm=update_norm(before, done.state),
    )


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


def _final(workshop: Federation, learned: TrainedModels) -> dict[str, float]:
    test = workshop.data.test
    if workshop.config.evaluation == "site" or test is None:
        return {}
    return readable(measured(workshop, learned.models(), test))


def _write_privacy(job: Run, *, grid: float) -> None:
    """``privacy.json`` and the collected ``ledger.jsonl``, as the silos' ledgers stand."""
    entries = ledgers(job.workshop, job.folder, job.facts.run)
    said = statement(job.workshop, job.facts.run, entries, grid=grid)
    write_json(job.folder.privacy, said.to_json() if said else NOTHING_CLAIMED)
    charges = sorted((e for es in entries.values() for e in es), key=lambda e: (e.round, e.silo))
    write_lines(job.folder.ledger, [e.to_json() for e in charges])


def _server(config: Config, folder: RunFolder) -> Server | None:
    """What the server owns; None where it hides nobody."""
    if config.privacy.unit != "client":
        return None
    return Server(home=folder.server, budget=budget(config))
