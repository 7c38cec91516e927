"""Workers: who starts the processes of a run, what they are told, and what else they do than train.

A worker opens the federation that the coordinator describes to it, while the coordinator opens the
same. Nothing is pickled: classes are named, and those outside of this package are imported only
because the command says so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from silotune.core import Answers, ClientId, joined
from silotune.objectives import Objective
from silotune.objectives.registry import derive_of
from silotune.privacy.planned_charges import PlannedCharges
from silotune.runtimes import Courier, Pool
from silotune.runtimes.pool import WorkerError
from silotune_link.process import known

from .description import Description
from .identity import classes, describe, is_ours
from .scoring import Ask
from .worker_orders import (
    Opening,
    Share,
    alone_order,
    answers_in,
    measure_order,
    metrics_in,
    opening_frame,
    planned_frame,
)

SILOTUNE = (sys.executable, "-P", "-m", "silotune")
"""The command line in another process, which must not import what lies in the current folder."""


WORKERS_LOG = "workers.log"
"""Beside the silos' folders: what workers of a private run would say on the screen, and all that
workers of Ray say."""


class CourierToWorkers(Courier, Protocol):
    """The way to processes of which any can act for any client."""

    @property
    def size(self) -> int:
        """How many there are."""
        ...


class Workers:
    """Workers of a run, once they are told all.

    Args:
        courier: the way to them.
        deadline: seconds that a round may take.
        objective: that they are scored by.

    Attributes:
        courier: the same.
    """

    def __init__(self, courier: CourierToWorkers, deadline: float, objective: Objective) -> None:
        self.courier, self._deadline, self._objective = courier, deadline, objective

    def measure(self, asks: Sequence[Ask]) -> list[Answers]:
        """Answers to each ask (``scoring.Measure``); the records are shared out.

        Raises:
            WorkerError: if a worker fails, or they are not done when a round must be.
        """
        shares = [Share(i, self.courier.size) for i in range(self.courier.size)]
        orders = {ClientId(f"share-{s.number}"): measure_order(asks, s) for s in shares}
        told = dict(self._answers(orders, self._deadline))
        derive = derive_of(self._objective)
        parts = [answers_in(told[name], derive) for name in orders]
        return [joined(own for own in ask if len(own.counts)) for ask in zip(*parts, strict=True)]

    def alone(
        self, silos: Sequence[str], rounds: int, place: Path
    ) -> Iterator[tuple[str, Mapping[str, float]]]:
        """What each silo reaches by itself, as they end.

        Args:
            silos: by name.
            rounds: of each.
            place: a folder for what they keep meanwhile.

        Raises:
            WorkerError: as ``measure``; each round has the time of a round.
        """
        orders = {ClientId(name): alone_order(name, str(place)) for name in silos}
        for silo, told in self._answers(orders, self._deadline * rounds * len(silos)):
            yield silo, metrics_in(told)

    def _answers(
        self, orders: Mapping[ClientId, bytes], deadline: float
    ) -> Iterator[tuple[ClientId, bytes]]:
        """All of them."""
        left = set(orders)
        for name, answer in self.courier.exchange(orders, min(deadline, _MOST)):
            left.discard(name)
            yield name, answer
        if left:
            raise WorkerError(
                f"round_deadline: workers were not done with {len(left)} of {len(orders)} tasks "
                f"after {deadline:g} seconds; raise it"
            )


_MOST = 1e9
"""Seconds: no clock waits longer."""


@contextmanager
def starting(
    federation: Description, command: Sequence[str], folder: Path, run: str, began: str
) -> Iterator[Callable[[PlannedCharges], Workers]]:
    """Let the workers of a run open what it is of: a pool on this machine at once, Ray's in time.

    Args:
        federation: says which, and how many.
        command: starts a worker, without the folder.
        folder: of the run.
        run: its identity.
        began: when it did.

    Yields:
        What tells them the noise, and gives them; the folder must be made by then.

    Raises:
        ValueError: if the federation cannot be described to another process.
    """
    words = [*command, str(folder.resolve())]
    opening = opening_frame(Opening(federation, run, began))
    noise: Future[bytes] = Future()
    with ExitStack() as stack:
        stack.callback(noise.cancel)  # so that nobody waits for it when the workers have ended
        pool = None
        if federation.runtime == "pool":
            told = [known(opening), noise]
            pool = stack.enter_context(Pool(words, federation.workers, told))
            pool.warm()

        def ready(planned: PlannedCharges) -> Workers:
            frame = planned_frame(planned)
            noise.set_result(frame)
            courier = pool or stack.enter_context(_ray(federation, words, folder, [opening, frame]))
            return Workers(courier, federation.round_deadline, federation.terms.objective)

        yield ready


def _ray(federation: Description, words: Sequence[str], folder: Path, told: Sequence[bytes]) -> Any:
    """The courier to workers of a Ray cluster."""
    from silotune.runtimes.ray import RayCourier

    log = folder.resolve() / "sites" / WORKERS_LOG
    return RayCourier(words, log, federation.workers, federation.machine.device, told)


def worker_command(federation: Description) -> list[str]:
    """Starts a worker, without the folder of the run.

    Raises:
        ValueError: if something of the federation cannot be named to another process.
    """
    described = describe(federation)
    refuse_unreachable(described)
    return [*SILOTUNE, "worker", *_imports(described)]


def audit_worker(federation: Description) -> list[str]:
    """Starts a worker of an audit, without its folder; empty if it cannot be told what to open."""
    try:
        described = describe(federation)
        refuse_unreachable(described)
    except ValueError:
        return []
    return [*SILOTUNE, "audit-worker", *_imports(described)]


def refuse_unreachable(described: Mapping[str, Any]) -> None:
    """Refuse classes that only this program has.

    Raises:
        ValueError: naming the class.
    """
    for name in classes(described):
        module, _, kind = name.partition(":")
        if module == "__main__" or "<locals>" in kind:
            where = "this notebook or program" if module == "__main__" else "a function"
            raise ValueError(
                f"runtime: {kind} is a class of {where}, which worker processes cannot import; "
                "put it into a module of its own, or use runtime='in-process'"
            )


def _imports(described: Mapping[str, Any]) -> list[str]:
    """Options that name the modules of classes which are not ours."""
    modules = sorted({name.partition(":")[0] for name in classes(described) if not is_ours(name)})
    return [part for name in modules for part in ("--import", name)]
