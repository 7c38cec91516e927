"""``run``: train, show it, and leave a folder that says what happened, however it ends."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import typer
from rich.console import Console

from silotune.config import Config, is_path
from silotune.core import RecordError
from silotune.core.units import count_text, number_text
from silotune.engine import EVERY_CLIENT, QuorumError
from silotune.federation.baselines import silo_alone
from silotune.federation.opening import Run, is_finished, opened
from silotune.federation.run import exhausted, finish, rounds, stop
from silotune.runs.folder import RunFolder

from .config_source import chosen, warnings
from .console import busy, emit, say, speaker
from .errors import ERROR, INTERRUPTED, complain, sentences
from .progress import Watch, watch_alone, watch_rounds
from .run_summary import result, tell

WORKER = (sys.executable, "-P", "-m", "silotune")
"""Starts a worker of the pool, which must not import what lies in the current folder."""

MOST_SILOS = 12
"""Silos that the heading names one by one."""


def train(
    name: str, overrides: Sequence[str], output_dir: str | None, *, resume: bool, as_json: bool
) -> None:
    """Run a configuration to its end, or say why not."""
    console, config = speaker(as_json=as_json), chosen(name, overrides, output_dir)
    folder = RunFolder(Path(config.output_dir))
    if resume and is_finished(folder, config):
        say(console, f"{folder.path}: this run is finished already")
    else:
        command = ["silotune", *sys.argv[1:]]
        with ExitStack() as stack:
            with busy(console, "opening model and data, computing the noise"):
                job = stack.enter_context(opened(config, command, _worker(config), resume=resume))
            for line in _heading(job):
                say(console, line)
            _to_the_end(job, console)
    tell(folder, console)
    if as_json:
        emit(result(folder))


def _to_the_end(job: Run, console: Console) -> None:
    """Train what is left; whatever stops it is noted in the folder."""
    workshop = job.workshop
    watch = Watch.of(workshop.config, job.state.round, job.facts.metric)
    try:
        watch_rounds(rounds(job), watch, console)
        alone = {}
        if workshop.config.baselines:
            alone = watch_alone(silo_alone(workshop), watch, len(workshop.sizes), console)
        with busy(console, "writing adapter and report"):
            finish(job, alone)
    except KeyboardInterrupt:
        stop(job, "stopped: interrupted")
        say(console, f"interrupted; whole rounds are kept. Continue with: {_resume(job)}")
        raise typer.Exit(INTERRUPTED) from None
    except QuorumError as error:
        if silos := exhausted(job):
            _finish_early(job, f"the privacy budget of {', '.join(silos)} is spent", console)
        _fail(job, error, console)
        raise
    except Exception as error:
        _fail(job, error, console)
        raise


def _finish_early(job: Run, reason: str, console: Console) -> None:
    """Make the rounds that are done the result."""
    finish(job, status=f"stopped: {reason}")
    tell(job.folder, console)
    complain(f"{reason}; the run ends with the rounds that are done")
    raise typer.Exit(ERROR)


def _fail(job: Run, error: Exception, console: Console) -> None:
    with suppress(RecordError):  # on a full disk the first error is the one to tell
        stop(job, f"failed: {'; '.join(sentences(error))}")
    say(console, f"whole rounds are kept. When it is mended, continue with: {_resume(job)}")


def _resume(job: Run) -> str:
    own = _own_method(job.workshop.config)
    return shlex.join(["silotune", *own, "run", str(job.folder.path), "--resume"])


def _worker(config: Config) -> list[str]:
    return [*WORKER, *_own_method(config), "worker"]


def _own_method(config: Config) -> list[str]:
    """Names a method of the user's own, whose code the folder of a run cannot bring in."""
    name = config.method.name
    return ["--method-class", name] if is_path(name) else []


def _heading(job: Run) -> Iterator[str]:
    """What is about to happen."""
    workshop = job.workshop
    config, model = workshop.config, workshop.model
    rank = f", rank {config.method.given('r')}" if model.recipe.adapter else ""
    yield (
        f"{config.method.title}{rank} on {config.model.name_or_path}: {model.shared:,} of "
        f"{model.total:,} numbers are trained and sent"
    )
    train = config.train
    yield (
        f"{count_text(len(workshop.sizes), 'silo')}, {count_text(train.num_rounds, 'round')} of "
        f"{count_text(train.local_steps, 'step')}, {train.batch_size} records a step; "
        f"results in {job.folder.path}"
    )
    if job.state.round:
        yield f"continuing after round {job.state.round}"
    if workshop.central.private:
        yield f"  {EVERY_CLIENT}: hidden by the server{_noise(job, EVERY_CLIENT)}"
    yield from list(_silos(job))[:MOST_SILOS]
    if len(workshop.sizes) > MOST_SILOS:
        yield f"  and {len(workshop.sizes) - MOST_SILOS} more: silotune plan shows all"
    yield from warnings(config, workshop.notices)


def _silos(job: Run) -> Iterator[str]:
    workshop = job.workshop
    for name, size in workshop.sizes.items():
        noised = workshop.privacy[name].private
        terms = f" declared{_noise(job, name)}" if noised else ""
        yield f"  {name}: {count_text(size, 'record')}{terms}"


def _noise(job: Run, account: str) -> str:
    """What is promised for an account, and the noise that keeps it."""
    charge, privacy = job.workshop.price(account), job.workshop.config.privacy
    assert charge is not None
    text = f", noise multiplier σ = {number_text(charge.noise_multiplier)}"
    if privacy.target_epsilon is not None:
        text += f", budget ε = {number_text(privacy.target_epsilon)}"
    return f"{text}, δ = {number_text(privacy.target_delta)}"
