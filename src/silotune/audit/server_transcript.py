"""Transcript of a server that hides its clients: the states of a real run, and the cohorts.

Its clients change nothing, so every state is the one before it and noise. They are the audit's own:
what they do is no part of the guarantee. Loop, cohorts, ledger, noise and states are those of any
run. The server takes the plain mean of what is shared; products, which other rules add, have the
same vector of noise and are attacked by ``server``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from silotune.aggregation import Mean
from silotune.core import ClientId, ClientTask, ClientUpdate, GlobalState, Key, RoundPlan
from silotune.engine import Experiment, LocalTrainer, Server, federate
from silotune.engine.channel import seal
from silotune.engine.client_state import received
from silotune.methods import Axes
from silotune.privacy import Correlated
from silotune.privacy.mechanisms.dp_fedavg import ClientLevel
from silotune.schedules import Schedule
from silotune.terms import BuiltModel

from .checks import Numbers
from .noise_claimed import Noise, covariance, whitened
from .transcript import SEED

SERVER = "the server"


@dataclass(frozen=True, kw_only=True, eq=False)
class ServerTranscript:
    """What left, and what must not.

    Attributes:
        noises: of every round, N(0, 1) if the claim holds.
        cohorts: by round, the clients that were asked, as numbers; secret.
    """

    noises: Sequence[Noise]
    cohorts: Sequence[Sequence[int]]


def transcribed_server(central: ClientLevel, model: BuiltModel, rounds: int) -> ServerTranscript:
    """Run a federation of clients that change nothing.

    Args:
        central: audited as it is.
        model: says what is shared.
        rounds: of the run.
    """
    names = [ClientId(f"client-{i:06}") for i in range(central.clients)]
    axes = Axes(
        schedule=_Unfolded(model.axes.schedule),
        optimizer=model.axes.optimizer,
        adapter=model.axes.adapter,
        aggregator=Mean(),
    )
    experiment = Experiment(
        run="audit",
        axes=axes,
        weights=dict.fromkeys(names, 1.0),
        rounds=rounds,
        local_steps=1,
        seed=SEED,
        draw=model.trainer.draw,
        sites=tuple(model.trainer.adapted.layers),
        fixed=model.fixed,
        quorum=1,
        private=True,
        central=central,
    )
    idle, begun = _Idle(model.trainer, names, {}), model.first_state()
    with tempfile.TemporaryDirectory() as home:
        server = Server(home=Path(home))
        done = federate(experiment, idle, begun, server)
        states = [begun, *(round.state for round in done)]
    shared = [sorted(experiment.plan(r).shared(states[r].factors)) for r in range(rounds)]
    return ServerTranscript(
        noises=_noises(central, states, shared),
        cohorts=[idle.asked.get(r, []) for r in range(rounds)],
    )


def _noises(
    central: ClientLevel, states: Sequence[GlobalState], shared: Sequence[Sequence[Key]]
) -> list[Noise]:
    rows = [
        {key: _moved(central, states[r], states[r + 1], key) for key in keys}
        for r, keys in enumerate(shared)
    ]
    if isinstance(central.noise, Correlated):
        rows = whitened(rows, covariance(central.noise.bands, len(rows), 1))
    return [
        Noise(of=SERVER, round=r, seed=SEED, steps=1, tensors=row) for r, row in enumerate(rows)
    ]


def _moved(central: ClientLevel, before: GlobalState, after: GlobalState, key: Key) -> Numbers:
    """In units of the noise: z S / (q N) of each number, S as it stood."""
    std = central.update_noise * central.clipping_norm(before.memory) / central.expected_cohort
    change = after.factors[key].double() - before.factors[key].double()
    return np.asarray(change.flatten().numpy() / std, dtype=np.float64)


@dataclass(frozen=True)
class _Unfolded(Schedule):
    """A method's schedule, but pairs stay where their noise can be read."""

    schedule: Schedule

    def plan(self, round: int, sites: Sequence[str] = ()) -> RoundPlan:
        return replace(self.schedule.plan(round, sites), fold=False)

    def plans(self) -> tuple[RoundPlan, ...]:
        return tuple(replace(plan, fold=False) for plan in self.schedule.plans())

    @property
    def steady(self) -> bool:
        return self.schedule.steady


@dataclass(frozen=True, eq=False)
class _Idle:
    """Clients that send back what they were sent."""

    trainer: LocalTrainer
    names: Sequence[ClientId]
    asked: dict[int, list[int]] = field(default_factory=dict)

    def clients(self) -> Sequence[ClientId]:
        return self.names

    def train(self, tasks: Sequence[ClientTask]) -> Iterator[ClientUpdate]:
        number = {name: i for i, name in enumerate(self.names)}
        for task in tasks:
            self.asked.setdefault(task.round, []).append(number[task.client])
            unchanged = task.plan.shared(received(task, self.trainer))
            yield ClientUpdate(
                run=task.run,
                round=task.round,
                client=task.client,
                sealed=seal(unchanged, task, unchanged),
            )

    def evaluate(self, tasks: Sequence[ClientTask]) -> Sequence[ClientUpdate]:
        return []
