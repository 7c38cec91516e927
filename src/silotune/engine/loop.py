"""Federated fine-tuning, as the paper's algorithm reads: ask, train, pool, step.

Where a central mechanism hides the clients, nothing that depends on the cohort leaves this file
but the state, and that is charged first (``accounts``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from silotune.algebra import seed_of
from silotune.core import (
    GlobalState,
    Plan,
    Seeded,
    Task,
    encode_task,
    lift,
)
from silotune.privacy import Past
from silotune.privacy.central import Before

from .accounts import Server, charged
from .channel import seal
from .experiment import Experiment
from .runtime import Runtime
from .server import Pooled, QuorumError, pool, server_step, unmoved


@dataclass(frozen=True, kw_only=True)
class Round:
    """One finished round.

    Under central privacy it tells the state and nothing of the cohort: ``pooled`` is empty, the
    aggregation error NaN, and bytes are those of the expected cohort.
    """

    state: GlobalState
    pooled: Pooled
    aggregation_error: float
    bytes_down: int


def federate(
    experiment: Experiment, runtime: Runtime, state: GlobalState, server: Server | None = None
) -> Iterator[Round]:
    """Run the rounds that ``state`` still lacks; yields after each one.

    The last round's state is all that a resumed run needs to end in the same place.

    Args:
        experiment: what decides the run.
        runtime: where its clients are.
        state: where it stands.
        server: needed under central privacy.

    Raises:
        QuorumError: if a round found too few clients; names each and the reason. Or, under
            central privacy, if the budget does not allow another round.
        ValueError: if a shared tensor did not move in a round without privacy.
    """
    while state.round < experiment.rounds:
        if experiment.central.private:
            done = _hidden_round(experiment, runtime, state, server)
        else:
            done = _round(experiment, runtime, state, None)
        state = done.state
        yield done


def _round(
    experiment: Experiment, runtime: Runtime, state: GlobalState, past: Past | None
) -> Round:
    """Ask, train, pool, step. Under central privacy it goes on whoever is missing."""
    central, recipe = experiment.central, experiment.recipe
    draws = central.draws(state.round, past)
    cohort = set(central.cohort(experiment.clients, draws))
    tasks = [t for t in make_tasks(experiment, runtime, state) if t.client in cohort]
    plan, before = recipe.schedule.plan(state.round), _before(experiment, state)
    results = runtime.train(tasks) if tasks else ()
    pooled = pool(tasks, results, experiment.weights, lambda sent: central.bound(sent, before))
    if not central.private:
        _check_quorum(experiment, state, pooled)
    mean, memory = central.mean(pooled.statistics, before, draws)
    after, error = server_step(recipe, state, mean)
    _check_moved(experiment, plan, state, after)
    return Round(
        state=replace(after, memory=memory),
        pooled=pooled,
        aggregation_error=error,
        bytes_down=sum(len(encode_task(task)) for task in tasks),
    )


def _before(experiment: Experiment, state: GlobalState) -> Before:
    """What a central mechanism measures changes against: products only if they are asked for."""
    recipe = experiment.recipe
    shared = lift(state.factors.only(recipe.schedule.plan(state.round).share), 1.0)
    if not recipe.aggregator.needs_product:
        shared = replace(shared, product={})
    return Before(state.round, shared, state.memory)


def _hidden_round(
    experiment: Experiment, runtime: Runtime, state: GlobalState, server: Server | None
) -> Round:
    """A round of which only the next state is told.

    Raises:
        ValueError: if the server has no folder.
        QuorumError: if the budget is spent.
        SiloStoreError: if what was charged before cannot be gone on from.
    """
    if server is None:
        raise ValueError("client-level privacy needs a folder of the server's, for its ledger")

    def train(past: Past) -> GlobalState:
        return _round(experiment, runtime, state, past).state

    up, down = expected_bytes(experiment, make_tasks(experiment, runtime, state))
    return Round(
        state=charged(experiment, state, server, train),
        pooled=Pooled(statistics=None, clients=(), missing={}, resent=(), bytes_up=up),
        aggregation_error=math.nan,
        bytes_down=down,
    )


def expected_bytes(experiment: Experiment, tasks: Sequence[Task]) -> tuple[int, int]:
    """Bytes of a round to the server, and from it, if as many take part as are expected.

    Args:
        experiment: its central mechanism says how many that is.
        tasks: of all clients. Their messages differ in their names only.
    """
    share = experiment.central.sampling_rate * len(tasks)
    first = tasks[0]
    up = len(seal(first.factors.only(first.plan.share), first))
    return round(share * up), round(share * len(encode_task(first)))


def make_tasks(experiment: Experiment, runtime: Runtime, state: GlobalState) -> list[Task]:
    """The round's orders, one for each client."""
    plan = experiment.recipe.schedule.plan(state.round)
    seeded = _seeded(experiment, state)
    left = 1.0 - state.round / experiment.rounds if experiment.linear_decay else 1.0
    return [
        Task(
            run=experiment.run,
            round=state.round,
            client=client,
            factors=state.factors.without(experiment.seeded if seeded else ()),
            seeded=seeded,
            plan=plan,
            steps=experiment.local_steps,
            learning_rate=experiment.recipe.optimizer.learning_rate * left,
            seed=seed_of(experiment.seed, "client", state.round, client),
        )
        for client in runtime.clients()
    ]


def _seeded(experiment: Experiment, state: GlobalState) -> Seeded | None:
    """Seed and SHA-256 of the tensors that need not travel."""
    if not experiment.seeded:
        return None
    keys = tuple(sorted(experiment.seeded))
    frozen = state.factors.without(state.factors.keys() - experiment.seeded)
    return Seeded(seed=experiment.seed, keys=keys, digest=frozen.digest())


def _check_moved(
    experiment: Experiment, plan: Plan, before: GlobalState, after: GlobalState
) -> None:
    if experiment.private or experiment.central.private:
        return
    first_step = before.round == 0 and experiment.local_steps == 1
    still = unmoved(before.factors, after.factors, plan, first_step=first_step)
    if still:
        raise ValueError(
            f"round {before.round} trained {', '.join(still[:3])} but left it exactly as it was: "
            "this model does not use it, or train.learning_rate is too small to matter"
        )


def _check_quorum(experiment: Experiment, state: GlobalState, pooled: Pooled) -> None:
    if pooled.statistics is not None and len(pooled.clients) >= experiment.quorum:
        return
    reasons = "; ".join(f"{client}: {why}" for client, why in pooled.missing.items())
    raise QuorumError(
        f"round {state.round} needs {experiment.quorum} clients (train.min_clients) and got "
        f"{len(pooled.clients)}. {reasons}"
    )
