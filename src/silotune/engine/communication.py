"""Communication: what a run's messages weigh, counted from real ones before anything trains.

Clients' updates are made up; their sizes are not. Of messages of one length one is made. The first
rounds are played through the server's own step; later ones repeat the last of them, by a period
that most ways of taking turns divide.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import reduce
from operator import add
from typing import NamedTuple

import torch
from torch import Tensor

from silotune.core import ClientId, ClientTask, Factors, GlobalState, generator

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
        anybody = make_tasks(experiment, experiment.clients[:1], state)
        typical = _average(seen or [*_weights(anybody, state).values()])
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
        tasks = make_tasks(experiment, cohort, state)
        yield _weights(tasks, state)
        if not tasks:
            state = rested(experiment, state)
            continue
        updates = (_made_up(task, state) for task in _telling(experiment, tasks))
        total = reduce(add, (statistics_of(experiment, update, 1.0) for update in updates))
        holders = () if experiment.central.private else cohort
        state, _ = server_step(experiment, state, total.mean(), holders)


def _telling(experiment: Experiment, tasks: Sequence[ClientTask]) -> Sequence[ClientTask]:
    """Those whose updates decide what the next state is like: a plain mean has the shapes of one.

    What another rule makes of several may have a rank that grows with them.
    """
    return tasks[:1] if experiment.axes.aggregator.rule.replaceable else tasks


def _weights(tasks: Sequence[ClientTask], state: GlobalState) -> dict[ClientId, Bytes]:
    """What the orders and the answers to them weigh; alike ones are made once."""
    found: dict[Hashable, Bytes] = {}
    for task in tasks:
        if _length(task, state) not in found:
            shared = task.plan.shared(state.factors.cut(task.rank))
            weight = Bytes(len(seal(shared, task, shared)), bytes_to(task, state))
            found[_length(task, state)] = weight
    return {task.client: found[_length(task, state)] for task in tasks}


def _length(task: ClientTask, state: GlobalState) -> Hashable:
    """What differs between messages of a round that are not of one length."""
    name = json.dumps(json.dumps(task.client))  # as it stands in a header, which is text in a text
    knows = task.client in state.latest.holders
    return (task.rank, task.steps, len(name), len(str(task.seed)), knows)


def _average(sent: Sequence[Bytes]) -> Bytes:
    ups, downs = zip(*sent, strict=True)
    return Bytes(round(sum(ups) / len(ups)), round(sum(downs) / len(downs)))


def _made_up(task: ClientTask, state: GlobalState) -> Factors:
    """Some update of a client."""
    g = generator("traffic", task.client, task.round)

    def moved(tensor: Tensor) -> Tensor:
        return tensor + 0.01 * torch.randn(tensor.shape, generator=g, dtype=tensor.dtype)

    return task.plan.shared(state.factors.cut(task.rank)).map(moved)
