"""Transcript: a real run of the real code on an audit's own records, and all that left the silos.

Loop, messages, ledger, coins, clipping and noise are those of any run, over several silos, rounds
and local steps, in this process or in workers of a pool. Only the records are made up, and the
optimiser is plain SGD: a message is then where the round began, less the learning rate times the
sum of the noised gradients of its steps, which is what an adversary who sees messages can read. All
that trains is sent, also what a method would keep at the silo.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain, cycle, islice
from pathlib import Path

import numpy as np

from silotune.aggregation import Aggregator
from silotune.core import (
    ClientDataset,
    ClientId,
    ClientTask,
    ClientUpdate,
    Factors,
    GlobalState,
    Key,
    Role,
    RoundPlan,
    unpack,
)
from silotune.engine import Client, ClientAgreement, Experiment, LocalTrainer, Runtime, federate
from silotune.engine.own_start import own_start
from silotune.methods import Axes
from silotune.objectives import PerExampleLoss
from silotune.privacy import ClientMechanism
from silotune.runtimes import InProcess
from silotune.schedules import Schedule
from silotune.terms import BuiltModel

from .checks import Numbers
from .observer import ObservedRecords, ObservedSGD, Observer, Step, steps_of

SEED = 0
"""Of the audited run; public, as any run's is."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Message:
    """What one silo sent in one round, as an adversary reads it.

    Attributes:
        silo: its name.
        round: 0-based.
        seed: of the task; public.
        steps: local steps that trained a tensor, by key; keys in the order in which they train.
        moved: the sum of the steps' gradients, by key, flat, float64.
    """

    silo: str
    round: int
    seed: int
    steps: Mapping[Key, int]
    moved: Mapping[Key, Numbers]


@dataclass(frozen=True, kw_only=True, eq=False)
class Transcript:
    """What left.

    Attributes:
        messages: of all silos and rounds, in the order of rounds, then silos.
        steps: by silo, what the audit's optimiser and records saw of every local step; it does not
            leave a real run.
        local_steps: of each silo in a round.
    """

    messages: Sequence[Message]
    steps: Mapping[str, Sequence[Step]]
    local_steps: int

    def of(self, silo: str) -> list[Message]:
        """One silo's, by round."""
        return [message for message in self.messages if message.silo == silo]

    @property
    def read(self) -> dict[str, list[Sequence[int]]]:
        """By silo, the records that every step read; secret in a real run."""
        return {silo: [step.read for step in steps] for silo, steps in self.steps.items()}

    @property
    def silos(self) -> list[str]:
        """By name."""
        return sorted({message.silo for message in self.messages})


@dataclass(frozen=True, kw_only=True)
class Course:
    """What the audited run does.

    Attributes:
        rounds: of the run.
        local_steps: of each silo in a round.
        learning_rate: of plain SGD.
        micro_batch: records that go through the model at once.
    """

    rounds: int
    local_steps: int
    learning_rate: float = 1.0
    micro_batch: int = 16


@dataclass(frozen=True)
class AllSent(Schedule):
    """A method's schedule, where all that trains is also sent."""

    schedule: Schedule

    def plan(self, round: int, sites: Sequence[str] = ()) -> RoundPlan:
        """The method's orders."""
        plan = self.schedule.plan(round, sites)
        return replace(plan, share=plan.trained())

    def plans(self) -> tuple[RoundPlan, ...]:
        """The method's."""
        return tuple(replace(plan, share=plan.trained()) for plan in self.schedule.plans())

    @property
    def steady(self) -> bool:
        """As the method says."""
        return self.schedule.steady


Silos = Mapping[ClientId, Client]
Open = Callable[[LocalTrainer, Silos], AbstractContextManager[Runtime]]
"""Opens a runtime for silos; they keep their folders."""


def in_process(trainer: LocalTrainer, silos: Silos) -> AbstractContextManager[Runtime]:
    """Silos take turns in this process."""
    return nullcontext(InProcess(trainer, silos))


def audited(
    model: BuiltModel,
    objective: PerExampleLoss,
    course: Course,
    records: Mapping[str, tuple[ClientDataset, ClientMechanism]],
    home: Path,
) -> tuple[LocalTrainer, dict[ClientId, Client]]:
    """The model as an audit trains it, and its silos.

    Args:
        model: the adapted model.
        objective: of the records.
        course: of the run.
        records: and mechanism, by silo.
        home: the silos' folders are made below it.
    """
    observer = Observer()
    trainer = replace(
        model.trainer,
        objective=objective,
        optimizer=ObservedSGD(course.learning_rate, observer),
        micro_batch=course.micro_batch,
    )
    silos = dict[ClientId, Client]()
    for name, (own, mechanism) in records.items():
        place = home / f"silo-{len(silos)}"
        place.mkdir(parents=True, exist_ok=True)
        silos[ClientId(name)] = Client(
            client=ClientId(name),
            train=ObservedRecords(own, observer, place),
            held_out=None,
            privacy=mechanism,
            home=place,
        )
    experiment = _experiment(model, trainer, silos, course, model.axes)
    return trainer, _agreed(silos, experiment, model, model.first)


def transcribed(
    model: BuiltModel,
    trainer: LocalTrainer,
    silos: Silos,
    course: Course,
    *,
    start: Factors | None = None,
    schedule: Schedule | None = None,
    aggregator: Aggregator | None = None,
    opened: Open = in_process,
) -> Transcript:
    """Run a federation and write down what left.

    Args:
        model: says what trains when, and what the server makes of it.
        trainer: see ``audited``.
        silos: the same.
        course: of the run.
        start: tensors to begin with, in place of the model's first.
        schedule: in place of the method's.
        aggregator: in place of the method's.
        opened: where silos train.

    Raises:
        QuorumError: if a silo gave nothing that the server takes.
    """
    axes = replace(
        model.axes,
        schedule=schedule or model.axes.schedule,
        aggregator=aggregator or model.axes.aggregator,
    )
    experiment = _experiment(model, trainer, silos, course, axes)
    begun = model.first_state() if start is None else GlobalState(round=0, factors=start)
    order = list(trainer.adapted.tensors)
    with opened(trainer, _agreed(silos, experiment, model, begun.factors)) as runtime:
        recording = _Recording(runtime)
        states = [begun, *(done.state for done in federate(experiment, recording, begun))]
    messages = [
        _read(task, result, _start(task, states, trainer), order)
        for task, result in recording.heard
    ]
    return Transcript(
        messages=sorted(messages, key=lambda m: (m.round, m.silo)),
        steps={name: steps_of(client.folder) for name, client in silos.items()},
        local_steps=course.local_steps,
    )


def _experiment(
    model: BuiltModel, trainer: LocalTrainer, silos: Silos, course: Course, axes: Axes
) -> Experiment:
    """The run of a course, by whatever of the method it keeps."""
    return Experiment(
        run="audit",
        axes=Axes(
            schedule=AllSent(axes.schedule),
            optimizer=trainer.optimizer,
            adapter=axes.adapter,
            aggregator=axes.aggregator,
        ),
        weights=dict.fromkeys(silos, 1.0),
        rounds=course.rounds,
        local_steps=course.local_steps,
        seed=SEED,
        draw=trainer.draw,
        sites=tuple(trainer.adapted.layers),
        fixed=model.fixed,
        largest_update=math.inf,
        quorum=len(silos),
        private=True,
    )


def _agreed(
    silos: Silos, experiment: Experiment, model: BuiltModel, first: Factors
) -> dict[ClientId, Client]:
    """Silos that let themselves be asked for this run; SGD at its rate may go far."""

    def agreement(silo: Client) -> ClientAgreement:
        return ClientAgreement(
            client=silo.client,
            experiment=experiment,
            first=first,
            base=model.digest,
            mechanism=repr(silo.privacy),
            clips=False,
        )

    return {name: replace(silo, agreement=agreement(silo)) for name, silo in silos.items()}


class _Recording:
    """A runtime of which somebody hears every message."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.heard: list[tuple[ClientTask, ClientUpdate]] = []

    def clients(self) -> Sequence[ClientId]:
        return self._runtime.clients()

    def train(self, tasks: Sequence[ClientTask]) -> Iterator[ClientUpdate]:
        asked = {task.client: task for task in tasks}
        for result in self._runtime.train(tasks):
            if not result.refusal:
                self.heard.append((asked[result.client], result))
            yield result

    def evaluate(self, tasks: Sequence[ClientTask]) -> Sequence[ClientUpdate]:
        return self._runtime.evaluate(tasks)


def _start(task: ClientTask, states: Sequence[GlobalState], trainer: LocalTrainer) -> Factors:
    """What a client began a round from: the state, and what it drew of its own."""
    return states[task.round].factors.updated(own_start(task, trainer.draw))


def _read(task: ClientTask, result: ClientUpdate, start: Factors, order: Sequence[Key]) -> Message:
    sent, _ = unpack(result.sealed)
    steps = steps_by_role(task.plan, task.steps)

    def moved(key: Key) -> Numbers:
        change = (start[key].double() - sent[key].double()) / task.learning_rates[0]
        return np.asarray(change.flatten().numpy(), dtype=np.float64)

    keys = [key for key in order if key in sent]
    return Message(
        silo=task.client,
        round=task.round,
        seed=task.seed,
        steps={key: 0 if key in task.plan.fixed else steps[key.role] for key in keys},
        moved={key: moved(key) for key in keys},
    )


def steps_by_role(plan: RoundPlan, steps: int) -> Counter[Role]:
    """How many of a round's steps train each role, by the plan."""
    phases = chain.from_iterable([phase.roles] * phase.steps for phase in cycle(plan.phases))
    return Counter(role for roles in islice(phases, steps) for role in roles)


def cycle_of(schedule: Schedule) -> int:
    """Steps until every phase of every plan has had its turn."""
    return max(sum(phase.steps for phase in plan.phases) for plan in schedule.plans())
