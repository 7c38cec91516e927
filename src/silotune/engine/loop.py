"""Federated fine-tuning, as the paper's algorithm reads: ask, train, pool, step.

Where a central mechanism hides the clients, nothing that depends on the cohort leaves this file
but the state, and that is charged first (``server_ledger``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

from silotune.core import (
    ClientId,
    ClientMean,
    ClientTask,
    ClientUpdate,
    Factors,
    GlobalState,
    Seeded,
    Statistics,
    encode_task,
)
from silotune.privacy import NoiseState
from silotune.privacy.mechanisms.server import RoundStart

from .channel import seal
from .experiment import Experiment
from .normalized import stretched
from .participants import Server
from .runtime import Runtime
from .server import Pooled, QuorumError, contribution, pool, rested, server_step, unmoved
from .server_ledger import charged


@dataclass(frozen=True, kw_only=True)
class Round:
    """One finished round.

    Under central privacy it tells the state and nothing of the cohort: ``pooled`` is empty, the
    aggregation error NaN, and bytes are those of the expected cohort. The error is NaN as well
    where changes are averaged by the step, and so no product of a client's is.
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
        done = one_round(experiment, runtime, state, server)
        state = done.state
        yield done


def one_round(
    experiment: Experiment, runtime: Runtime, state: GlobalState, server: Server | None = None
) -> Round:
    """The round that comes next; as ``federate``. One that draws nobody leaves the model alone."""
    if experiment.central.private:
        return _hidden_round(experiment, runtime, state, server)
    if not experiment.cohort(state.round):
        nothing = pool((), (), lambda task, result: contribution(experiment, state, task, result))
        return Round(
            state=rested(experiment, state), pooled=nothing, aggregation_error=0.0, bytes_down=0
        )
    return _round(experiment, runtime, state, None)


def _round(
    experiment: Experiment, runtime: Runtime, state: GlobalState, past: NoiseState | None
) -> Round:
    """Ask, train, pool, step. Under central privacy it goes on whoever is missing."""
    central = experiment.central
    draws = central.draws(state.round, past)
    cohort = set(central.cohort(experiment.cohort(state.round), draws))
    asked = [client for client in runtime.clients() if client in cohort]
    tasks = make_tasks(experiment, asked, state)
    before = _before(experiment, state)
    results = runtime.train(tasks) if tasks else ()

    def opened(task: ClientTask, result: ClientUpdate) -> Statistics:
        return central.bound(contribution(experiment, state, task, result), before)

    pooled = pool(tasks, results, opened)
    if not central.private:
        _check_quorum(experiment, state, pooled)
    mean, memory = central.mean(pooled.statistics, before, draws)
    if experiment.reach is not None:
        mean = stretched(mean, experiment.plan(state.round).shared(state.factors))
    _check_moved(experiment, state, mean, max((task.steps for task in tasks), default=0))
    holders = () if central.private else pooled.clients  # who took part is secret there
    after, error = server_step(experiment, replace(state, memory=memory), mean, holders)
    return Round(
        state=after,
        pooled=pooled,
        aggregation_error=error if experiment.reach is None else math.nan,
        bytes_down=bytes_to_all(tasks, state),
    )


def _before(experiment: Experiment, state: GlobalState) -> RoundStart:
    """What a central mechanism measures changes against: products only if they are asked for."""
    shared = Statistics.of(experiment.plan(state.round).shared(state.factors), 1.0)
    if not experiment.axes.aggregator.needs_product:
        shared = replace(shared, product={})
    return RoundStart(state.round, shared, state.memory)


def bytes_to(task: ClientTask, state: GlobalState) -> int:
    """Size of the message that a client needs: what is new, if it took part in the last round."""
    any_digest = "0" * 64
    return len(
        encode_task(task, leaning_on=any_digest if task.client in state.latest.holders else "")
    )


def bytes_to_all(tasks: Sequence[ClientTask], state: GlobalState) -> int:
    """The sum; those of a round that differ in a name or a seed of the same length are as long."""
    sizes: dict[Hashable, int] = {}

    def size(task: ClientTask) -> int:
        name = len(json.dumps(json.dumps(task.client)))
        held = task.client in state.latest.holders
        kind = task.rank, task.steps, held, name, len(str(task.seed))
        if kind not in sizes:
            sizes[kind] = bytes_to(task, state)
        return sizes[kind]

    return sum(map(size, tasks))


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

    def train(past: NoiseState | None) -> GlobalState:
        return _round(experiment, runtime, state, past).state

    up, down = _expected_bytes(experiment, runtime.clients(), state)
    return Round(
        state=charged(experiment, state, server, train),
        pooled=Pooled(statistics=None, clients=(), missing={}, resent=(), bytes_up=up),
        aggregation_error=math.nan,
        bytes_down=down,
    )


def _expected_bytes(
    experiment: Experiment, clients: Sequence[ClientId], state: GlobalState
) -> tuple[int, int]:
    """Bytes of a round to the server, and from it, if as many take part as are expected.

    Args:
        experiment: its central mechanism says how many that is.
        clients: all of them. Their messages differ in their names only.
        state: what they are sent.
    """
    share = experiment.central.sampling_rate * len(clients)
    [first] = make_tasks(experiment, clients[:1], state)
    shared = first.plan.shared(state.factors.cut(first.rank))
    up = len(seal(shared, first, shared))
    return round(share * up), round(share * bytes_to(first, state))


def make_tasks(
    experiment: Experiment, clients: Sequence[ClientId], state: GlobalState
) -> list[ClientTask]:
    """The round's orders, one for each client."""
    plan = experiment.plan(state.round)
    taken = {client: experiment.steps_of(client) for client in clients}
    rates = {n: experiment.learning_rates(state.round, n) for n in set(taken.values())}
    held = {rank: state.factors.cut(rank) for rank in {None, *experiment.ranks.values()}}
    seeded = {rank: _seeded(state, factors) for rank, factors in held.items()}
    sent = {rank: factors.without(state.drawn.keys()) for rank, factors in held.items()}

    def task(client: ClientId) -> ClientTask:
        rank = experiment.ranks.get(client)
        return ClientTask(
            run=experiment.run,
            round=state.round,
            client=client,
            factors=sent[rank],
            folded=state.folded,
            change=state.latest,
            rank=rank,
            seeded=seeded[rank],
            plan=plan,
            steps=taken[client],
            learning_rates=rates[taken[client]],
            seed=experiment.client_seed(state.round, client),
            remembers_since=experiment.remembers_since(state.round),
        )

    return [task(client) for client in clients]


def _seeded(state: GlobalState, factors: Factors) -> tuple[Seeded, ...]:
    """Seeds and SHA-256 of the tensors that need not travel."""

    def drawn(seed: int) -> Seeded:
        keys = tuple(sorted(k for k, s in state.drawn.items() if s == seed))
        return Seeded(seed=seed, keys=keys, digest=factors.digest(keys))

    return tuple(drawn(seed) for seed in sorted(set(state.drawn.values())))


def _check_moved(
    experiment: Experiment, before: GlobalState, mean: ClientMean, most_steps: int
) -> None:
    if experiment.private or experiment.central.private:
        return
    still = unmoved(before, mean, local_steps=most_steps)
    if still:
        raise ValueError(
            f"round {before.round} trained {', '.join(still[:3])} but left it exactly as it was: "
            "this model does not use it, or lr is too small to matter"
        )


def _check_quorum(experiment: Experiment, state: GlobalState, pooled: Pooled) -> None:
    needed = min(experiment.quorum, len(experiment.cohort(state.round)))
    if pooled.statistics is not None and len(pooled.clients) >= needed:
        return
    reasons = "; ".join(f"{client}: {why}" for client, why in pooled.missing.items())
    raise QuorumError(
        f"round {state.round} needs {needed} clients (min_clients) and got "
        f"{len(pooled.clients)}. {reasons}"
    )
