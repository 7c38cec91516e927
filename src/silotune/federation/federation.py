"""Federation: objects in, a run out."""

from __future__ import annotations

import signal
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from warnings import warn

from silotune.core import RecordError
from silotune.engine import QuorumError
from silotune.runs.folder import RoundRecord, RunFolder
from silotune.runtimes import Courier
from silotune.signals import Terminated, heard, how

from .audit_effort import SHORT, THOROUGH
from .audit_subject import of_federation
from .baselines import silo_alone
from .data_summary import Division, divide
from .description import Description
from .eva import ExplainedVariance, explained_variance_start
from .keeping import mend
from .opening import OpenRun, check_records, check_same, is_finished, opened
from .plan import Plan, forecast
from .progress import watched
from .run import exhausted, finish, rounds, stop
from .run_result import Run
from .scoring import metric_name
from .settling import settled
from .workers import audit_worker, worker_command

if TYPE_CHECKING:
    from .audit_part import Part


class Federation(Description):
    """A model, the clients' records, a method, a privacy choice, rounds and steps.

    Nothing is opened when it is made. Its arguments are those of ``Description``.
    """

    def plan(self) -> Plan:
        """What a run will cost: noise, epsilon by round, bytes. Nothing trains.

        Raises:
            ValueError: naming the field that cannot work out.
        """
        return forecast(self)

    def fit(
        self,
        folder: str | Path,
        *,
        resume: bool = False,
        progress: bool | None = None,
        courier: Courier | None = None,
    ) -> Run:
        """Train to the end, with a bar in a terminal and in a notebook.

        Whatever stops it, whole rounds are kept: ``resume=True`` continues after the last one.

        Args:
            folder: of the result; must not exist yet, unless a run is resumed. A private run needs
                one too: its ledgers must outlive the program.
            resume: continue this very run; a finished one is returned as it is.
            progress: whether a bar is shown; None = in a terminal and in a notebook.
            courier: the way to clients that are ``Sites``.

        Raises:
            ValueError: naming the field, before anything is written; or if the folder holds a run
                of another federation.
            QuorumError: if a round found too few clients. If their budget is spent, the rounds that
                are done are the result: ``result(folder)``.
        """
        place = RunFolder(Path(folder))
        if resume:
            _mend(place)
        one = settled(self, place)
        if not (resume and is_finished(place, one)):
            try:
                with heard():
                    one._to_the_end(folder, courier, resume=resume, progress=progress)
            except Terminated as asked:
                signal.raise_signal(asked.signal)  # the folder is in order
                raise
        return Run(one, place)

    def rounds(
        self, folder: str | Path, *, resume: bool = False, courier: Courier | None = None
    ) -> Generator[RoundRecord, None, None]:
        """The same, round by round: each record is yielded when it is safe on the disk.

        Args:
            folder: as for ``fit``.
            resume: as for ``fit``.
            courier: as for ``fit``.

        Raises:
            ValueError: as ``fit``.
        """
        if resume:
            _mend(RunFolder(Path(folder)))
        one = settled(self, RunFolder(Path(folder)))
        worker = worker_command(one) if one.in_workers else []
        with opened(one, Path(folder), resume=resume, worker=worker, courier=courier) as run:
            try:
                yield from rounds(run)
                ends = (step for step in silo_alone(run.built, run.workers) if step.metrics)
                alone = {step.silo: step.metrics for step in ends}
                finish(run, alone)
            except (Exception, KeyboardInterrupt, GeneratorExit) as error:
                self._noted(run, error)
                raise

    def result(self, folder: str | Path) -> Run:
        """A run of this federation that was made before, finished or not.

        Args:
            folder: of the run.

        Raises:
            ValueError: if there is none, or it is of another federation.
        """
        place = RunFolder.existing(folder)
        one = settled(self, place)
        check_same(one, place)
        check_records(one, place)
        return Run(one, place)

    def data(self) -> Division:
        """How the records divide over the clients. Epsilon does not cover what it says."""
        return divide(self)

    def eva(self, texts: Sequence[str], folder: str | Path) -> ExplainedVariance:
        """Write an adapter to begin from, of what layers read of public texts: ``init_from``.

        Args:
            texts: that anybody may know, some hundreds; no record of a client is read.
            folder: a new one.

        Raises:
            ValueError: if the method's pairs cannot begin so, or the texts are too few.
        """
        return explained_variance_start(self, texts, folder)

    def audit(self, *, thorough: bool = False) -> list[Part]:
        """Attack what silos send with canaries: is it what is claimed?

        Args:
            thorough: up to twenty minutes instead of two: also worker processes, more silos,
                rounds and trials, and canaries through the whole model.
        """
        from .audit import audit  # which loads statistics

        effort = THOROUGH if thorough else SHORT
        one = settled(self)
        return list(audit(of_federation(one), effort, audit_worker(one)))

    def _to_the_end(
        self, folder: str | Path, courier: Courier | None, *, resume: bool, progress: bool | None
    ) -> None:
        records = self.rounds(folder, resume=resume, courier=courier)
        metric = metric_name(self.terms)
        with closing(records):
            baseline = bool(self.baselines)
            for _ in watched(records, self.terms, metric, baseline=baseline, progress=progress):
                pass

    def _noted(self, run: OpenRun, error: BaseException) -> None:
        """Say in the folder why a run ends; if its budget is spent, what is done is the result."""
        with suppress(RecordError):  # on a full disk the first error is the one to tell
            if isinstance(error, QuorumError) and (clients := exhausted(run)):
                reason = f"the privacy budget of {', '.join(clients)} is spent"
                finish(run, status=f"stopped: {reason}")
                error.add_note(f"{reason}; the rounds that are done are the result")
            elif isinstance(error, KeyboardInterrupt):
                stop(run, f"stopped: {how(error)}")
            elif isinstance(error, GeneratorExit):
                stop(run, "stopped: its rounds were left")
            else:
                stop(run, f"failed: {' '.join(str(error).split())}")


def _mend(folder: RunFolder) -> None:
    """Write again what a run has lost, and say so."""
    for told in mend(folder):
        warn(told, stacklevel=3)
