"""Opening: a run's folder is made, or found again, when everything else is in order.

``run.json`` is written last: with it a run has begun. A folder that holds a checkpoint but no
``run.json`` is a start that was cut short, in which nothing was trained; it begins anew.
"""

from __future__ import annotations

import contextlib
import platform
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

import silotune
from silotune.certificate.issue import standing
from silotune.config import Config, differences, digest, dump, load_config
from silotune.core import GlobalState
from silotune.core.files import write_json, write_text
from silotune.engine import Runtime
from silotune.engine.checkpoint import CheckpointError
from silotune.engine.checkpoint import load as load_checkpoint
from silotune.engine.checkpoint import save as save_checkpoint
from silotune.runs.facts import RunFacts, read_facts
from silotune.runs.folder import RunFolder
from silotune.runtimes import InProcess, Pool

from .build import device_of
from .federation import Federation, build_silos, first_state, open_federation
from .scoring import metric_name

PACKAGES = (
    "torch",
    "transformers",
    "datasets",
    "dp-accounting",
    "cryptography",
    "safetensors",
    "numpy",
)
"""Whose versions a run records."""

LEAST_SPACE = 50_000_000
"""Bytes that must be free: adapters and records are small, but a full disk stops any run."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """A run that is ready to go on.

    Attributes:
        workshop: its parts.
        folder: its result folder.
        state: where it stands.
        facts: what ``run.json`` says.
        runtime: where its silos train.
    """

    workshop: Federation
    folder: RunFolder
    state: GlobalState
    facts: RunFacts
    runtime: Runtime


@contextlib.contextmanager
def opened(
    config: Config, command: Sequence[str], worker: Sequence[str], *, resume: bool
) -> Iterator[Run]:
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
    workshop = open_federation(config)
    if folder.run.exists():
        state, facts = _resumed(workshop, folder)
    else:
        state, facts = _begun(workshop, folder, command)
    for name in workshop.sizes:
        folder.site(name).mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        runtime: Runtime
        silos = build_silos(workshop, folder)
        if config.runtime == "pool":
            command = [*worker, str(folder.path)]
            pool = Pool(command, list(silos), config.workers, config.train.round_deadline)
            runtime = stack.enter_context(pool)
        else:
            runtime = InProcess(workshop.model.bench, silos)
        yield Run(workshop=workshop, folder=folder, state=state, facts=facts, runtime=runtime)


def saved_config(folder: RunFolder) -> Config:
    """The configuration that a run was started with."""
    return load_config(folder.config, [], of_run=True)


def state_file(folder: RunFolder) -> Path:
    """The checkpoint."""
    return folder.checkpoint / "state.bin"


def is_finished(folder: RunFolder, config: Config) -> bool:
    """Whether nothing is left to do for this configuration, the page for people included."""
    if not folder.run.is_file() or not folder.report.is_file():
        return False
    return read_facts(folder).status == "finished" and not differences(saved_config(folder), config)


def free_space(path: Path) -> int:
    """Bytes that are free where a run's folder is, or will be.

    Raises:
        ValueError: if a run should not begin there.
    """
    place = next(p for p in (path, *path.resolve().parents) if p.exists())
    free = shutil.disk_usage(place).free
    if free < LEAST_SPACE:
        raise ValueError(
            f"output_dir: only {free // 1_000_000} MB are free at {place}; make room, or choose "
            "another folder with --output-dir"
        )
    return free


def now() -> str:
    """The time in ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _folder(config: Config, *, resume: bool) -> RunFolder:
    """Refuse early what cannot work: a run in the way, another configuration, a full disk."""
    folder = RunFolder(Path(config.output_dir))
    began, cut_short = folder.run.exists(), state_file(folder).exists()
    if resume and not began and not cut_short:
        RunFolder.existing(folder.path)  # refuses in words
    if not resume and (began or (folder.config.exists() and not cut_short)):
        RunFolder.create(folder.path)  # refuses in words
    if began and (differ := differences(saved_config(folder), config)):
        raise ValueError(
            f"--resume: {folder.path} was started with another configuration: {'; '.join(differ)}. "
            "Use the same one, or another --output-dir for a new run"
        )
    free_space(folder.path)
    return folder


def _begun(
    workshop: Federation, folder: RunFolder, command: Sequence[str]
) -> tuple[GlobalState, RunFacts]:
    """Make the folder of a new run; if that fails, nothing is left of it."""
    _clear(folder)
    RunFolder.create(folder.path)
    state, facts = first_state(workshop), _facts(workshop, command)
    try:
        save_checkpoint(state_file(folder), state, facts.run, digest(workshop.config))
        write_text(folder.config, dump(workshop.config))
        write_json(folder.run, facts.to_json())
    except BaseException:
        _clear(folder)
        raise
    return state, facts


def _clear(folder: RunFolder) -> None:
    """Remove what a start that was cut short has left, the configuration before its proof."""
    if not state_file(folder).exists():
        return
    for file in (folder.run, folder.config, state_file(folder)):
        file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # somebody else keeps something there
        folder.checkpoint.rmdir()
        folder.path.rmdir()


def _resumed(workshop: Federation, folder: RunFolder) -> tuple[GlobalState, RunFacts]:
    state, run, config = load_checkpoint(state_file(folder))
    facts = read_facts(folder)
    if run != facts.run or config != digest(workshop.config):
        raise CheckpointError(f"{folder.checkpoint}: the checkpoint belongs to another run")
    if facts.model_digest != workshop.model.digest:
        keys = "model.name_or_path" + (
            ", method.experts" if workshop.config.method.given("experts") else ""
        )
        raise CheckpointError(f"{keys}: the base weights are not those of this run")
    folder.truncate_rounds(before=state.round if state.round else -1)
    facts = replace(facts, status="running", finished=None)
    write_text(folder.config, dump(workshop.config))  # where and beside what it runs may change
    write_json(folder.run, facts.to_json())
    return state, facts


def _facts(workshop: Federation, command: Sequence[str]) -> RunFacts:
    config, model = workshop.config, workshop.model
    return RunFacts(
        run=uuid.uuid4().hex[:12],
        started=now(),
        status="running",
        privacy=standing(config),
        seed=config.train.seed,
        metric=metric_name(workshop),
        versions={"silotune": silotune.__version__, "python": platform.python_version()}
        | {name: version(name) for name in PACKAGES},
        config_digest=digest(config),
        model_digest=model.digest,
        parameters={"trained": model.trained, "shared": model.shared, "total": model.total},
        command=list(command),
        host={"device": str(device_of(config)), "threads": torch.get_num_threads()},
        silos={name: {"num_examples": size} for name, size in workshop.sizes.items()},
        labels=list(workshop.labels),
    )
