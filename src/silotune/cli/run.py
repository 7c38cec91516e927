"""``run``: train, show it, and leave a folder that says what happened, however it ends."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path

import typer
from rich.console import Console

from silotune.config import Config, differences, dump, is_path, settle
from silotune.core import RecordError, work_text
from silotune.core.units import count_text, number_text
from silotune.engine import EVERY_CLIENT, QuorumError
from silotune.engine.checkpoint import load as load_checkpoint
from silotune.federation.acceptance import SitesRefuseError
from silotune.federation.baselines import silo_alone
from silotune.federation.beside_sites import offer_out
from silotune.federation.keeping import mend
from silotune.federation.opening import OpenRun, is_finished, opened
from silotune.federation.run import exhausted, finish, rounds, stop
from silotune.federation.workers import SILOTUNE
from silotune.runs.folder import RunFolder
from silotune.runs.lock import refuse_while_written
from silotune.signals import how

from .config_source import chosen, saved, warnings
from .console import busy, emit, say, speaker
from .couriers import check_kit, courier_of
from .errors import ERROR, code_of, complain, sentences
from .progress import Watch, watch_alone, watch_rounds
from .run_summary import result, tell

MOST_SILOS = 12
"""Silos that the heading names one by one."""


def train(
    name: str, overrides: Sequence[str], output_dir: str | None, *, resume: bool, as_json: bool
) -> None:
    """Run a configuration to its end, or say why not."""
    console = speaker(as_json=as_json)
    if resume and Path(name).is_dir():  # its configuration may be what is lost
        _mend(RunFolder(Path(name)), console)
    config = chosen(name, overrides, output_dir)
    check_kit(config)
    folder = RunFolder(Path(config.output_dir))
    refuse_while_written(folder)
    if resume:
        _mend(folder, console)
    with busy(console, "choosing the learning rate") if _open(config) else nullcontext():
        config, federation = settle(config, folder)
    if resume:
        _check_same(folder, config)
    if resume and is_finished(folder, federation):
        say(console, f"{folder.path}: this run is finished already")
    else:
        command = ["silotune", *sys.argv[1:]]
        again = [*_own_method(config), "run", name, *overrides, "--output-dir", str(folder.path)]
        with ExitStack() as stack:
            courier = stack.enter_context(courier_of(config, folder))
            with _offering(folder, again, console), busy(console, _opening(config)):
                job = stack.enter_context(
                    opened(
                        federation,
                        folder.path,
                        command,
                        resume=resume,
                        config=dump(config),
                        worker=_worker(config),
                        courier=courier,
                        tell=partial(say, console),
                    )
                )
            _to_the_end(job, config, console)
    tell(folder, console)
    if as_json:
        emit(result(folder))


def _open(config: Config) -> bool:
    """Whether something is to be chosen first, for which the model is opened."""
    return config.train.learning_rate == "auto"


def _opening(config: Config) -> str:
    """What is waited for before the first round."""
    if config.federation.sites:
        return "opening the model, and waiting for the sites"
    return "opening model and data, computing the noise"


@contextmanager
def _offering(folder: RunFolder, again: Sequence[str], console: Console) -> Iterator[None]:
    """While sites are asked: whoever stops waiting is told how the same offer goes on.

    Args:
        folder: of the run.
        again: the words of the command, without ``--resume``.
        console: to speak to.
    """
    command = shlex.join(["silotune", *again, "--resume"])
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if offer_out(folder) is None:
            raise
        say(console, f"{how(interrupt)}; the offer stays. Continue with: {command}")
        raise typer.Exit(code_of(interrupt)) from None
    except SitesRefuseError:
        say(console, f"the offer stays. When it is mended, continue with: {command}")
        raise


def _mend(folder: RunFolder, console: Console) -> None:
    """Write again what a run has lost, and say so."""
    for told in mend(folder):
        say(console, f"notice: {told}")


def _check_same(folder: RunFolder, config: Config) -> None:
    """That a run was begun by this configuration, if it was by one.

    Raises:
        ValueError: naming every key that differs.
    """
    if not folder.config.is_file():
        return
    if differ := differences(saved(folder), config):
        raise ValueError(
            f"--resume: {folder.path} was started with another configuration: {'; '.join(differ)}. "
            "Use the same one, or another --output-dir for a new run"
        )


def _to_the_end(job: OpenRun, config: Config, console: Console) -> None:
    """Train what is left; whatever stops it is noted in the folder."""
    built = job.built
    watch = Watch.of(config, built.terms, job.state.round, job.facts.metric)
    try:
        for line in _heading(job, config):
            say(console, line)
        watch_rounds(rounds(job), watch, console)
        alone = {}
        if built.federation.baselines:
            alone = watch_alone(
                silo_alone(built, job.workers), watch, len(built.agreement.sizes), console
            )
        with busy(console, "writing adapter and report"):
            finish(job, alone)
    except KeyboardInterrupt as interrupt:
        why = how(interrupt)
        with suppress(RecordError):
            stop(job, f"stopped: {why}")
        say(console, f"{why}; {_kept(job)}. Continue with: {_resume(job, config)}")
        raise typer.Exit(code_of(interrupt)) from None
    except QuorumError as error:
        if silos := exhausted(job):
            _finish_early(job, f"the privacy budget of {', '.join(silos)} is spent", console)
        _fail(job, config, error, console)
        raise
    except Exception as error:
        _fail(job, config, error, console)
        raise


def _finish_early(job: OpenRun, reason: str, console: Console) -> None:
    """Make the rounds that are done the result."""
    finish(job, status=f"stopped: {reason}")
    tell(job.folder, console)
    complain(f"{reason}; the run ends with the rounds that are done")
    raise typer.Exit(ERROR)


def _fail(job: OpenRun, config: Config, error: Exception, console: Console) -> None:
    with suppress(RecordError):  # on a full disk the first error is the one to tell
        stop(job, f"failed: {'; '.join(sentences(error))}")
    say(console, f"{_kept(job)}. When it is mended, continue with: {_resume(job, config)}")


def _kept(job: OpenRun) -> str:
    try:
        done = load_checkpoint(job.folder.state).state.round
    except ValueError:  # the first error is the one to tell
        return "whole rounds are kept"
    return f"whole rounds are kept: {done} of {job.built.terms.rounds}"


def _resume(job: OpenRun, config: Config) -> str:
    own = _own_method(config)
    return shlex.join(["silotune", *own, "run", str(job.folder.path), "--resume"])


def _worker(config: Config) -> list[str]:
    return [*SILOTUNE, *_own_method(config), "worker"]


def _own_method(config: Config) -> list[str]:
    """Names a method of the user's own, whose code the folder of a run cannot bring in."""
    name = config.method.name
    return ["--method-class", name] if is_path(name) else []


def _heading(job: OpenRun, config: Config) -> Iterator[str]:
    """What is about to happen."""
    agreement = job.built.agreement
    model = agreement.model
    rank = f", rank {config.method.given('r')}" if model.axes.adapter else ""
    yield (
        f"{config.method.title}{rank} on {config.model.name_or_path}: {model.shared:,} of "
        f"{model.total:,} numbers are trained and sent"
    )
    train = config.train
    yield (
        f"{count_text(len(agreement.sizes), 'silo')}, {count_text(train.num_rounds, 'round')} of "
        f"{work_text(agreement.most_steps, train.num_local_epochs)} ({job.facts.optimizer}), "
        f"{train.batch_size} records a step; results in {job.folder.path}"
    )
    if job.state.round:
        yield f"continuing after round {job.state.round}"
    if agreement.server.private:
        yield f"  {EVERY_CLIENT}: hidden by the server{_noise(job, EVERY_CLIENT)}"
    yield from list(_silos(job))[:MOST_SILOS]
    if len(agreement.sizes) > MOST_SILOS:
        yield f"  and {len(agreement.sizes) - MOST_SILOS} more: silotune plan shows all"
    yield from warnings(config, job.built.notices)


def _silos(job: OpenRun) -> Iterator[str]:
    agreement = job.built.agreement
    for name, size in agreement.sizes.items():
        noised = agreement.mechanisms[name].private
        terms = f" declared{_noise(job, name)}" if noised else ""
        yield f"  {name}: {count_text(size, 'record')}{terms}"


def _noise(job: OpenRun, account: str) -> str:
    """What is promised for an account, and the noise that keeps it."""
    agreement = job.built.agreement
    charge, privacy = agreement.price(account), agreement.terms.hiding
    assert charge is not None
    text = f", noise multiplier σ = {number_text(charge.noise_multiplier)}"
    if privacy.target_epsilon is not None:
        text += f", budget ε = {number_text(privacy.target_epsilon)}"
    return f"{text}, δ = {number_text(privacy.target_delta)}"
