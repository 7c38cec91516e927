"""Run: a configuration becomes a result folder, one whole round after another.

A round is on the disk, metrics first and then the checkpoint, before the next one begins. So a
killed run continues from its last checkpoint, and what the record holds beyond it is cut off.
"""

from __future__ import annotations

import contextlib
import platform
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

import silotune
from silotune.adapters import save_peft
from silotune.config import Config, differences, digest, dump, load_config
from silotune.core import Factors, GlobalState
from silotune.core.files import write_json, write_lines, write_text
from silotune.engine import Round, Runtime, federate
from silotune.engine.checkpoint import CheckpointError
from silotune.engine.checkpoint import load as load_checkpoint
from silotune.engine.checkpoint import save as save_checkpoint
from silotune.engine.loop import make_tasks
from silotune.reports.card import model_card
from silotune.reports.facts import RunFacts, Summary, read_facts
from silotune.reports.html import render
from silotune.reports.outcome import outcome
from silotune.reports.record import RoundRecord, RunFolder
from silotune.runtimes import InProcess, Pool

from .baselines import silo_alone
from .scoring import measured, metric_name, readable, score
from .statement import ledgers, spent, statement
from .workshop import (
    Workshop,
    build_experiment,
    build_silos,
    device_of,
    first_state,
    open_workshop,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """A run that is ready to go on.

    Attributes:
        workshop: its parts.
        folder: its result folder.
        state: where it stands.
        facts: what ``run.json`` says.
        runtime: where its silos train.
    """

    workshop: Workshop
    folder: RunFolder
    state: GlobalState
    facts: RunFacts
    runtime: Runtime


@contextlib.contextmanager
def opened(
    config: Config, command: Sequence[str], worker: Sequence[str], *, resume: bool
) -> Iterator[Job]:
    """Open a run, new or to be resumed; nothing has been trained yet.

    Args:
        config: as resolved.
        command: the command line, for the record.
        worker: the command that starts a worker of the pool, without the folder.
        resume: continue from the folder's checkpoint.

    Raises:
        ValueError: in words; a new run's folder is made only when everything else is in order.
    """
    folder = _folder(config, resume=resume)
    workshop = open_workshop(config)
    if resume:
        state, facts = _resumed(workshop, folder)
    else:
        RunFolder.create(folder.path)
        state, facts = first_state(workshop), _facts(workshop, command)
        write_text(folder.config, dump(config))
        save_checkpoint(_state_file(folder), state, facts.run, digest(config))
    write_json(folder.run, facts.to_json())
    with contextlib.ExitStack() as stack:
        runtime: Runtime
        silos = build_silos(workshop, folder)
        if config.runtime == "pool":
            train = config.train
            command = [*worker, str(folder.path)]
            pool = Pool(command, list(silos), config.workers, train.round_deadline)
            runtime = stack.enter_context(pool)
        else:
            runtime = InProcess(workshop.bench, silos)
        yield Job(workshop=workshop, folder=folder, state=state, facts=facts, runtime=runtime)


def rounds(job: Job) -> Iterator[RoundRecord]:
    """Train what is left, yielding the record of each round once it is safe on the disk.

    Raises:
        QuorumError: if too few silos took part.
    """
    workshop, folder = job.workshop, job.folder
    experiment = build_experiment(workshop, job.facts.run)
    state = job.state
    if state.round == 0:
        folder.append_round(first := _before(workshop, state.factors))
        yield first
    start = time.monotonic()
    for done in federate(experiment, job.runtime, state):
        record = _record(job, state, done, time.monotonic() - start)
        if workshop.config.evaluation == "site":
            job.runtime.evaluate(make_tasks(experiment, job.runtime, done.state))
        folder.append_round(record)
        _write_privacy(job)
        save_checkpoint(_state_file(folder), done.state, job.facts.run, digest(workshop.config))
        yield record
        state, start = done.state, time.monotonic()


def finish(job: Job, status: str = "finished") -> None:
    """Score the last state once more on the test records and write adapter, card and page."""
    workshop, folder = job.workshop, job.folder
    state, _, _ = load_checkpoint(_state_file(folder))
    facts = replace(
        job.facts, status=status, finished=_now(), final=_final(workshop, state.factors)
    )
    if "silo-alone" in workshop.config.baselines and status == "finished":
        facts = replace(facts, baselines={"silo-alone": silo_alone(workshop)})
    export_adapter(workshop, folder, state.factors, facts)
    write_json(folder.run, facts.to_json())
    _write_privacy(job)
    write_text(folder.report, render(folder, summary(workshop)))
    if "tensorboard" in workshop.config.report_to:
        from silotune.reports.tensorboard import write_events

        write_events(folder)


def stop(job: Job, status: str) -> None:
    """Note in ``run.json`` why a run is not finished; its checkpoint stays."""
    write_json(job.folder.run, replace(job.facts, status=status).to_json())


def export_adapter(
    workshop: Workshop, folder: RunFolder, factors: Factors, facts: RunFacts
) -> None:
    """Write ``adapter/``: PEFT's two files and the model card."""
    save_peft(folder.adapter, factors, workshop.recipe.adapter, workshop.sites, workshop.layout)
    entries = ledgers(workshop, folder, facts.run)
    totals = outcome(folder.read_rounds(), facts.metric)
    card = model_card(summary(workshop), facts, totals, statement(workshop, entries))
    write_text(folder.adapter / "README.md", card)


def summary(workshop: Workshop) -> Summary:
    """What reports say of the configuration."""
    config = workshop.config
    method, train, model = config.method, config.train, config.model
    targets = sorted({site.name.rpartition(".")[2] for site in workshop.sites})
    simulated = config.evaluation == "simulation"
    split = {name: silo.summary for name, silo in workshop.data.silos.items()}
    has_adapter = workshop.recipe.adapter is not None
    return Summary(
        title=f"{model.name_or_path.rstrip('/').rpartition('/')[2]}, {method.name}",
        base_model=model.name_or_path,
        task=model.task,
        method=method.name,
        rank=method.r if has_adapter else 0,
        lora_alpha=method.lora_alpha,
        target_modules=", ".join(targets) if has_adapter else "none",
        data=config.data.path,
        num_rounds=train.num_rounds,
        local_steps=train.local_steps,
        batch_size=train.batch_size,
        optimizer=f"{train.optimizer}, learning rate {train.learning_rate:g}",
        evaluation=config.evaluation,
        pooling=model.pooling,
        head=model.head,
        max_length=config.data.max_length,
        split=split if simulated else {},
    )


def saved_config(folder: RunFolder) -> Config:
    """The configuration that a run was started with."""
    return load_config(folder.config, [])


def _folder(config: Config, *, resume: bool) -> RunFolder:
    """Refuse early what cannot work: a run in the way, another configuration, a full disk."""
    folder = RunFolder(Path(config.output_dir))
    if not resume:
        if folder.run.exists() or folder.config.exists():
            RunFolder.create(folder.path)  # refuses in words
        _need_space(folder)
        return folder
    RunFolder.existing(folder.path)
    if differ := differences(saved_config(folder), config):
        raise ValueError(
            f"--resume: {folder.path} was started with another configuration: {'; '.join(differ)}. "
            "Use the same one, or another --output-dir for a new run"
        )
    return folder


def _state_file(folder: RunFolder) -> Path:
    return folder.checkpoint / "state.bin"


def _need_space(folder: RunFolder) -> None:
    """Adapters and records are small, but a run should not begin on a disk that is full."""
    place = next(p for p in (folder.path, *folder.path.resolve().parents) if p.exists())
    free = shutil.disk_usage(place).free
    if free < 50_000_000:
        raise ValueError(
            f"output_dir: only {free // 1_000_000} MB are free at {place}; make room, or choose "
            "another folder with --output-dir"
        )


def _resumed(workshop: Workshop, folder: RunFolder) -> tuple[GlobalState, RunFacts]:
    state, run, config = load_checkpoint(_state_file(folder))
    facts = read_facts(folder)
    if run != facts.run or config != digest(workshop.config):
        raise CheckpointError(f"{folder.checkpoint}: the checkpoint belongs to another run")
    if facts.model_digest != workshop.model_digest:
        raise CheckpointError("model.name_or_path: the base weights are not those of this run")
    folder.truncate_rounds(before=state.round if state.round else -1)
    return state, replace(facts, status="running", finished=None)


def _facts(workshop: Workshop, command: Sequence[str]) -> RunFacts:
    share = workshop.recipe.schedule.plan(0).share
    shared = workshop.first.only(share).num_elements()
    total = sum(p.numel() for p in workshop.bench.adapted.model.parameters())
    packages = ("torch", "transformers", "datasets", "dp-accounting", "safetensors", "numpy")
    return RunFacts(
        run=uuid.uuid4().hex[:12],
        started=_now(),
        status="running",
        seed=workshop.config.train.seed,
        metric=metric_name(workshop),
        versions={"silotune": silotune.__version__, "python": platform.python_version()}
        | {name: version(name) for name in packages},
        config_digest=digest(workshop.config),
        model_digest=workshop.model_digest,
        parameters={"trained": shared, "shared": shared, "total": total},
        command=list(command),
        host={"device": str(device_of(workshop.config)), "threads": torch.get_num_threads()},
        silos={name: {"num_examples": size} for name, size in workshop.sizes.items()},
        labels=list(workshop.labels),
    )


def _before(workshop: Workshop, factors: Factors) -> RoundRecord:
    scores = score(workshop, factors)
    return RoundRecord(round=-1, metrics=scores.overall, silos=scores.silos)


def _record(job: Job, before: GlobalState, done: Round, seconds: float) -> RoundRecord:
    workshop, pooled = job.workshop, done.pooled
    scores = score(workshop, done.state.factors) if _is_due(workshop, done.state.round) else None
    change = done.state.factors.zip(before.factors, lambda a, b: (a - b).double().square().sum())
    return RoundRecord(
        round=before.round,
        seconds=seconds,
        bytes_up=pooled.bytes_up,
        bytes_down=done.bytes_down,
        clients=pooled.clients,
        missing={str(client): why for client, why in pooled.missing.items()},
        aggregation_error=done.aggregation_error,
        epsilon=spent(workshop, ledgers(workshop, job.folder, job.facts.run)),
        metrics=scores.overall if scores else {},
        silos=scores.silos if scores else {},
        update_norm=float(sum(change.values()) ** 0.5),
    )


def _is_due(workshop: Workshop, finished_rounds: int) -> bool:
    train = workshop.config.train
    return finished_rounds % train.eval_every == 0 or finished_rounds == train.num_rounds


def _final(workshop: Workshop, factors: Factors) -> dict[str, float]:
    test = workshop.data.test
    if workshop.config.evaluation == "site" or test is None:
        return {}
    return readable(measured(workshop, factors, test))


def _write_privacy(job: Job) -> None:
    """``privacy.json`` and the collected ``ledger.jsonl``, as the silos' ledgers stand."""
    entries = ledgers(job.workshop, job.folder, job.facts.run)
    said = statement(job.workshop, entries)
    write_json(job.folder.privacy, said.to_json() if said else {"unit": "none"})
    charges = sorted((e for es in entries.values() for e in es), key=lambda e: (e.round, e.silo))
    write_lines(job.folder.ledger, [vars(e) for e in charges])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
