"""Federated fine-tuning, as the paper's algorithm reads: ask, train, pool, step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from silotune.algebra import seed_of
from silotune.core import ClientId, GlobalState, Key, Plan, Seeded, Task, encode_task
from silotune.recipe import Recipe

from .runtime import Runtime
from .server import Pooled, pool, server_step, unmoved


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """All that decides a run, but for the records and the place where it runs.

    Attributes:
        run: identifies the run in messages and ledgers.
        recipe: the method.
        weights: public weight of each client (declared sizes, or all equal).
        rounds: number of rounds.
        local_steps: steps of each client in a round.
        linear_decay: the learning rate falls linearly over the rounds, to zero after the last.
        seed: of the initial tensors, data order and adapter dropout.
        seeded: tensors that every client draws for itself from ``seed``.
        quorum: fewest clients a round may do with.
        private: whether the clients' mechanisms hide their records.
    """

    run: str
    recipe: Recipe
    weights: Mapping[ClientId, float]
    rounds: int
    local_steps: int
    linear_decay: bool
    seed: int
    seeded: frozenset[Key]
    quorum: int
    private: bool


@dataclass(frozen=True, kw_only=True)
class Round:
    """One finished round."""

    state: GlobalState
    pooled: Pooled
    aggregation_error: float
    bytes_down: int


class QuorumError(RuntimeError):
    """Too few clients gave a usable update. Nothing of the round reached the state."""


def federate(experiment: Experiment, runtime: Runtime, state: GlobalState) -> Iterator[Round]:
    """Run the rounds that ``state`` still lacks; yields after each one.

    The last round's state is all that a resumed run needs to end in the same place.

    Raises:
        QuorumError: if a round found too few clients; names each and the reason.
        ValueError: if a shared tensor did not move in a round without privacy.
    """
    while state.round < experiment.rounds:
        tasks = make_tasks(experiment, runtime, state)
        pooled = pool(tasks, runtime.train(tasks), experiment.weights)
        if pooled.statistics is None or len(pooled.clients) < experiment.quorum:
            raise QuorumError(_too_few(experiment, state, pooled))
        before = state
        state, error = server_step(experiment.recipe, state, pooled.statistics.mean())
        _check_moved(experiment, tasks[0].plan, before, state)
        down = sum(len(encode_task(task)) for task in tasks)
        yield Round(state=state, pooled=pooled, aggregation_error=error, bytes_down=down)


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
    if experiment.private:
        return
    first_step = before.round == 0 and experiment.local_steps == 1
    still = unmoved(before.factors, after.factors, plan, first_step=first_step)
    if still:
        raise ValueError(
            f"round {before.round} trained {', '.join(still[:3])} but left it exactly as it was: "
            "this model does not use it, or train.learning_rate is too small to matter"
        )


def _too_few(experiment: Experiment, state: GlobalState, pooled: Pooled) -> str:
    reasons = "; ".join(f"{client}: {why}" for client, why in pooled.missing.items())
    return (
        f"round {state.round} needs {experiment.quorum} clients (train.min_clients) and got "
        f"{len(pooled.clients)}. {reasons}"
    )
