"""The server's half of a round: ask, pool what comes back, take one step.

``server_step`` is a pure function of the state and the pooled means. Contributions are added in
the order of the cohort, whenever they arrive, so that a run ends in the same bits on any runtime.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from silotune.aggregation import aggregation_error
from silotune.core import (
    ClientId,
    Factors,
    GlobalState,
    Key,
    Moments,
    Plan,
    Result,
    Role,
    Statistics,
    Task,
)
from silotune.recipe import Recipe

from .channel import RefusedUpdateError, open_sealed
from .releases import RECORDS


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """What a cohort gave.

    Attributes:
        statistics: None if nobody took part.
        clients: who is in the sum.
        missing: who is not, and why.
        resent: whose bytes were those of an earlier attempt.
        bytes_up: size of the accepted contributions.
    """

    statistics: Statistics | None
    clients: tuple[ClientId, ...]
    missing: Mapping[ClientId, str]
    resent: tuple[ClientId, ...]
    bytes_up: int


class QuorumError(RuntimeError):
    """Too few clients gave a usable update, or no budget is left to ask them. Nothing moved."""


def pool(
    tasks: Sequence[Task],
    results: Iterable[Result],
    weights: Mapping[ClientId, float | None],
    bound: Callable[[Statistics], Statistics] = lambda contribution: contribution,
) -> Pooled:
    """Add the contributions of a round: each client once, in the order of ``tasks``.

    Late, doubled, torn and foreign results are left out; a client that never gave a good one is
    missing, with the reason.

    Args:
        tasks: what was asked, of whom; possibly nobody.
        results: as they arrive.
        weights: of the clients; None: the noisy number of records that it sends along.
        bound: makes a client's part of the sum from its contribution.
    """
    shapes = _shared_shapes(tasks[0]) if tasks else {}
    total: Statistics | None = None
    clients, resent, missing, size = [], [], {}, 0
    for client, result in _in_order(tasks, results):
        if result is None or result.refusal:
            missing[client] = result.refusal if result else "no answer in time"
            continue
        try:
            statistics = bound(open_sealed(result, shapes, _weight(result, weights)))
        except RefusedUpdateError as error:
            missing[client] = f"its update was refused: {error}"
            continue
        total = statistics if total is None else total + statistics
        clients.append(client)
        size += len(result.sealed)
        if result.resent:
            resent.append(client)
    return Pooled(
        statistics=total,
        clients=tuple(clients),
        missing=missing,
        resent=tuple(resent),
        bytes_up=size,
    )


def server_step(recipe: Recipe, state: GlobalState, mean: Moments) -> tuple[GlobalState, float]:
    """Combine the means into the next state; also gives the relative aggregation error."""
    combined = recipe.aggregator.combine(state, mean)
    after = replace(state, round=state.round + 1, factors=state.factors.updated(combined))
    return after, aggregation_error(mean, after.factors)


def unmoved(before: Factors, after: Factors, plan: Plan, *, first_step: bool) -> list[str]:
    """Shared tensors that a round left exactly as they were.

    Args:
        before: factors at the start of the round.
        after: factors at its end.
        plan: what was to move.
        first_step: the round was one single step from B = 0, where A's gradient is zero.
    """
    moving = plan.share - {Role.A} if first_step else plan.share
    return [str(k) for k, t in after.only(moving).items() if torch.equal(t, before[k])]


def _weight(result: Result, weights: Mapping[ClientId, float | None]) -> float:
    """What a contribution counts for: never below one record, whatever the noise.

    Raises:
        RefusedUpdateError: if the client was to say so and did not.
    """
    declared = weights[result.client]
    if declared is not None:
        return declared
    said = result.meters.get(RECORDS)
    if said is None or not math.isfinite(said.total):
        raise RefusedUpdateError("it came without the number of records that is its weight")
    return max(1.0, said.total)


def _shared_shapes(task: Task) -> dict[Key, tuple[int, ...]]:
    """Shapes of what the clients upload; the task itself carries these tensors down."""
    return {k: tuple(t.shape) for k, t in task.factors.only(task.plan.share).items()}


def _in_order(
    tasks: Sequence[Task], results: Iterable[Result]
) -> Iterator[tuple[ClientId, Result | None]]:
    """Each client's first fitting result, in the order of tasks; early ones wait."""
    asked = {task.client: task for task in tasks}
    early: dict[ClientId, Result] = {}
    queue = iter(tasks)
    head = next(queue, None)
    for result in results:
        task = asked.get(result.client)
        fits = task is not None and (result.run, result.round) == (task.run, task.round)
        if not fits or asked.pop(result.client, None) is None:
            continue
        early[result.client] = result
        while head is not None and head.client in early:
            yield head.client, early.pop(head.client)
            head = next(queue, None)
    while head is not None:
        yield head.client, early.pop(head.client, None)
        head = next(queue, None)
