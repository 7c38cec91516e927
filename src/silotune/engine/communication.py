"""Communication: what a run's messages weigh, counted from real ones before anything trains.

Clients' updates are made up; their sizes are not. The first rounds are played through the server's
own step; later ones repeat the last of them, by a period that most ways of taking turns divide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from silotune.core import ClientId, ClientTask, Factors, GlobalState, Statistics, generator

from .channel import seal
from .experiment import Experiment
from .loop import bytes_to, make_tasks
from .server import rested, server_step, statistics_of
from .server_ledger import EVERY_CLIENT

PLAYED, PERIOD = 24, 12
"""Rounds that are played; of these, the last ones that repeat."""


class Bytes(NamedTuple):
    """Of one client in one round."""

    up: int
    down: int


def traffic(experiment: Experiment, state: GlobalState) -> list[Mapping[str, Bytes]]:
    """Bytes of every client that is asked, round by round, if all of them take part.

    Where rounds ask some, later ones have what an average client of those that are played needs.
    Clients that a server hides are counted together, as many as are expected (``EVERY_CLIENT``).
    """
    played = [_told(experiment, of_round) for of_round in _played(experiment, state)]
    if not experiment.cohorts.of_all:
        seen = [sent for of_round in played[-PERIOD:] for sent in of_round.values()]
        typical = _average(
            seen or [*_messages(experiment, experiment.clients[:1], state)[1].values()]
        )
        later = map(experiment.cohort, range(len(played), experiment.rounds))
        return [*played, *({str(client): typical for client in cohort} for cohort in later)]
    return [
        played[r] if r < PLAYED else played[PLAYED - PERIOD + r % PERIOD]
        for r in range(experiment.rounds)
    ]


def _told(experiment: Experiment, clients: Mapping[ClientId, Bytes]) -> Mapping[str, Bytes]:
    """What may be said of a round: of all together, where it is secret who took part."""
    if not experiment.central.private:
        return {str(client): sent for client, sent in clients.items()}
    expected = experiment.central.sampling_rate * len(experiment.clients)
    up, down = clients[experiment.clients[0]]  # they differ in their names only
    return {EVERY_CLIENT: Bytes(round(expected * up), round(expected * down))}


def _played(experiment: Experiment, state: GlobalState) -> Iterator[Mapping[ClientId, Bytes]]:
    for round in range(min(PLAYED, experiment.rounds)):
        cohort = experiment.cohort(round)
        sent, sizes = _messages(experiment, cohort, state)
        yield sizes
        total: Statistics | None = None
        for update in sent.values():
            part = statistics_of(experiment, update, 1.0)
            total = part if total is None else total + part
        if total is None:
            state = rested(experiment, state)
            continue
        holders = () if experiment.central.private else cohort
        state, _ = server_step(experiment, state, total.mean(), holders)


def _messages(
    experiment: Experiment, cohort: Sequence[ClientId], state: GlobalState
) -> tuple[Mapping[ClientId, Factors], Mapping[ClientId, Bytes]]:
    """Some updates of a cohort, and what their messages and the orders weigh."""
    tasks = make_tasks(experiment, cohort, state)
    sent = {task.client: _made_up(task, state) for task in tasks}
    sizes = {
        task.client: Bytes(_size(sent[task.client], task, state), bytes_to(task, state))
        for task in tasks
    }
    return sent, sizes


def _size(sent: Factors, task: ClientTask, state: GlobalState) -> int:
    return len(seal(sent, task, task.plan.shared(state.factors.cut(task.rank))))


def _average(sent: Sequence[Bytes]) -> Bytes:
    ups, downs = zip(*sent, strict=True)
    return Bytes(round(sum(ups) / len(ups)), round(sum(downs) / len(downs)))


def _made_up(task: ClientTask, state: GlobalState) -> Factors:
    """Some update of a client."""
    g = generator("traffic", task.client, task.round)

    def moved(tensor: Tensor) -> Tensor:
        return tensor + 0.01 * torch.randn(tensor.shape, generator=g, dtype=tensor.dtype)

    return task.plan.shared(state.factors.cut(task.rank)).map(moved)
