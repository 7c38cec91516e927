"""Job: one run of a grid, made in this process, or continued where it was left.

A run that has ended has a note beside its folder; one that was killed has none. One that failed is
tried again whenever the grid is: what was wrong may be mended, and whole rounds are kept.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from silotune.config import Config, Written, dump, in_keys, load_config, naming_keys, settle
from silotune.core.files import RecordError
from silotune.federation.baselines import silo_alone, untrained
from silotune.federation.built import BuiltFederation
from silotune.federation.keeping import mend
from silotune.federation.opening import OpenRun, opened
from silotune.federation.run import finish, rounds, stop
from silotune.runs.folder import RunFolder

from .grid import settings_text
from .record import Note, read_note, write_note


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run.

    Attributes:
        folder: of the run.
        base: what the base of its configuration says, and where that was written.
        overrides: over that, ``key=value``.
        untrained: whether the model is also scored before training, as the result will be.
        trial: whether it is one, which is scored on valid records and sees no test ones.
    """

    folder: str
    base: tuple[str, Mapping[str, Any]]
    overrides: Sequence[str]
    untrained: bool = False
    trial: bool = False

    @property
    def config(self) -> Config:
        """Its configuration.

        Raises:
            ConfigError: if there is none.
        """
        here = settings_text({"output_dir": self.folder})
        return load_config(Written(*self.base), [*self.overrides, *here])

    def to_bytes(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Job:
        """The inverse of ``to_bytes``."""
        return cls(**json.loads(data))


def is_done(folder: Path) -> bool:
    """Whether a run has its result."""
    note = read_note(folder)
    return note is not None and not note.failed


def run_job(job: Job) -> str:
    """Train what is left of a run, and note beside it what came of it.

    Returns:
        Why there is no result; empty where there is one.

    Raises:
        RecordError: if the note cannot be written.
    """
    try:
        note = _trained(job)
    except Exception as error:
        note = Note(failed=reason(error))
    write_note(Path(job.folder), note)
    return note.failed


def reason(error: BaseException) -> str:
    """Why a run failed, in a line."""
    text = " ".join(in_keys(str(error)).split())
    if isinstance(error, MemoryError):
        return "out of memory"
    if text and isinstance(error, ValueError | RuntimeError | OSError | ImportError):
        return text
    return f"{type(error).__name__}: {text}; this is a mistake in silotune: please report it"


def _trained(job: Job) -> Note:
    folder, config = RunFolder(Path(job.folder)), job.config
    with naming_keys():
        mend(folder)
        config, federation = settle(config, folder)
        resume = folder.state.is_file()
        with opened(federation, folder.path, resume=resume, config=dump(config)) as run:
            if job.trial:
                run.built = _without_tests(run.built)
            try:
                return _to_the_end(run, untrained_too=job.untrained)
            except BaseException as error:
                with suppress(RecordError):  # on a full disk the first error is the one to tell
                    stop(run, f"failed: {reason(error)}")
                raise


def _to_the_end(run: OpenRun, *, untrained_too: bool) -> Note:
    for _ in rounds(run):
        pass
    alone = [step for step in silo_alone(run.built) if step.metrics]
    finish(run, {step.silo: step.metrics for step in alone})
    return Note(
        peak_memory=_peak_memory(),
        untrained=untrained(run.built) if untrained_too else {},
        alone={step.silo: step.final for step in alone},
    )


def _without_tests(built: BuiltFederation) -> BuiltFederation:
    silos = {name: replace(silo, test=None) for name, silo in built.data.silos.items()}
    return replace(built, data=replace(built.data, silos=silos, test=None))


def _peak_memory() -> int:
    """Most bytes that this process has held."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
