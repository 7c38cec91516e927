"""The server's half of a round: ask, pool what comes back, take one step.

``server_step`` is a pure function of the state and the pooled means. Contributions are added in
the order of the cohort, whenever they arrive, so that a run ends in the same bits on any runtime.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from silotune.aggregation import Combined, aggregation_error
from silotune.core import (
    Change,
    ClientId,
    ClientMean,
    ClientTask,
    ClientUpdate,
    Factors,
    GlobalState,
    Key,
    Role,
    Statistics,
    accumulated,
    size_of_products,
    tensors_of,
)
from silotune.core.expert_matrix import stack_key
from silotune.linalg import Matrix

from .channel import RefusedUpdateError, open_sealed
from .client_releases import RECORDS
from .experiment import LARGEST_UPDATE, Experiment
from .normalized import by_step
from .own_start import from_common, own_start

MOST_OF_DECLARED = 2.0
"""Times the declared number of records that a noisy one may weigh: who says more than that says
nothing that anybody could check, and little would be left of other clients."""


SMALLEST_WEIGHT = 1e-30
"""Of a client whose products are zero, where norms are weights: alike if all are."""

LARGEST_WEIGHT = LARGEST_UPDATE**2
"""Where norms are weights: of two factors that moved as far as any honest training does."""


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
    tasks: Sequence[ClientTask],
    results: Iterable[ClientUpdate],
    opened: Callable[[ClientTask, ClientUpdate], Statistics],
) -> Pooled:
    """Add the contributions of a round: each client once, in the order of ``tasks``.

    Late, doubled, torn and foreign results are left out; a client that never gave a good one is
    missing, with the reason.

    Args:
        tasks: what was asked, of whom; possibly nobody.
        results: as they arrive.
        opened: a client's part of the sum; raises ``RefusedUpdateError`` if there is none.
    """
    total: Statistics | None = None
    clients, resent, missing, size = [], [], {}, 0
    for task, result in _in_order(tasks, results):
        if result is None or result.refusal:
            missing[task.client] = result.refusal if result else "no answer in time"
            continue
        try:
            statistics = opened(task, result)
        except RefusedUpdateError as error:
            missing[task.client] = f"its update was refused: {error}"
            continue
        total = statistics if total is None else total + statistics
        clients.append(task.client)
        size += len(result.sealed)
        if result.resent:
            resent.append(task.client)
    return Pooled(
        statistics=total,
        clients=tuple(clients),
        missing=missing,
        resent=tuple(resent),
        bytes_up=size,
    )


def contribution(
    experiment: Experiment, state: GlobalState, task: ClientTask, result: ClientUpdate
) -> Statistics:
    """One client's additive statistics, once its update is checked.

    Raises:
        RefusedUpdateError: naming what is wrong with it.
    """
    common = task.plan.shared(state.factors.cut(task.rank))
    own = own_start(task, experiment.draw)
    start = common.updated(own)
    # a clipping server bounds what it takes, and may not tell whom it refused
    largest = math.inf if experiment.central.private else experiment.largest_update
    shared = open_sealed(result, start, task.plan.upload, largest)
    weight = _weight(result, experiment)
    if experiment.reach is not None:
        reach = experiment.reach_of(task.client, task.round)
        return Statistics.of(by_step(shared, start, reach), weight, reach=reach)
    statistics = statistics_of(experiment, shared, weight)
    if not own or experiment.ranks:
        return statistics
    moved = Statistics.of(from_common(shared, own, common), statistics.weight)
    return replace(statistics, first=moved.first)


def statistics_of(experiment: Experiment, shared: Factors, weight: float) -> Statistics:
    """The additive part of what a client shared.

    Args:
        experiment: its rule may fill up ranks, or weigh by norms.
        shared: at the client's own rank.
        weight: the public or noisy one.

    Raises:
        RefusedUpdateError: if its products are larger than honest ones, where that is the weight.
    """
    rule = experiment.axes.aggregator.rule
    if rule.weighs_by_norm:
        weight = max(size_of_products(shared), SMALLEST_WEIGHT)
        if not weight <= LARGEST_WEIGHT:
            raise RefusedUpdateError("the norm of its products is its weight, and is too large")
    if rule.pads and experiment.ranks:
        shared = shared.padded(max(experiment.ranks.values()))
    return Statistics.of(shared, weight, ranks_differ=bool(experiment.ranks) and not rule.pads)


def server_step(
    experiment: Experiment, state: GlobalState, mean: ClientMean, holders: Collection[ClientId]
) -> tuple[GlobalState, float]:
    """Combine the means into the next state; also gives the relative aggregation error.

    Args:
        experiment: brings the rule and, where pairs begin afresh, the seed.
        state: before the round.
        mean: over those who took part.
        holders: who they are, if that may be told; they need not be sent everything again.

    Raises:
        ValueError: if the next state would hold numbers that are not finite in its type.
    """
    combined = experiment.axes.aggregator.combine(state, mean)
    error = aggregation_error(mean, state.factors, combined)
    return _next(experiment, state, combined, holders), error


def rested(experiment: Experiment, state: GlobalState) -> GlobalState:
    """The next state where nobody took part: the same model, though pairs begin afresh when due."""
    return _next(experiment, state, Combined(factors=Factors({})), ())


def _next(
    experiment: Experiment, state: GlobalState, combined: Combined, holders: Collection[ClientId]
) -> GlobalState:
    factors = state.factors.updated(combined.factors)
    increment = {s: m.to(_type(factors, s)) for s, m in combined.residual.items()}
    fresh: dict[Key, int] = {}
    if experiment.plan(state.round).fold:
        increment = dict(accumulated(increment, _pairs(factors)))
        factors, fresh = _afresh(experiment, factors, state.round + 1)
    keys = {k for k, t in factors.items() if not torch.equal(t, state.factors[k])}
    drawn = {k: seed for k, seed in state.drawn.items() if k not in keys}
    after = GlobalState(
        round=state.round + 1,
        factors=factors,
        folded=accumulated(state.folded, increment),
        drawn={**drawn, **fresh},
        latest=Change(keys=frozenset(keys), folded=increment, holders=frozenset(holders)),
        memory={**state.memory, **combined.memory},
    )
    _check_finite(after)
    return after if experiment.tail is None else experiment.tail.noted(after)


def _check_finite(state: GlobalState) -> None:
    """A state that cannot be written in its type reaches nobody."""
    factors = state.factors.updated(tensors_of(state.folded))
    parts = {**{str(key): tensor for key, tensor in factors.items()}, **state.memory}
    wild = next((name for name, tensor in parts.items() if not tensor.isfinite().all()), None)
    if wild is not None:
        raise ValueError(
            f"round {state.round - 1} would leave numbers in {wild} that are not finite; lower "
            "lr, server_learning_rate or largest_update"
        )


def unmoved(before: GlobalState, mean: ClientMean, *, local_steps: int) -> list[str]:
    """Shared tensors that a round left exactly as they were.

    Args:
        before: the state at its start.
        mean: what the clients gave.
        local_steps: the most of any client. After one single step from B = 0, A cannot have moved.
            Where pairs are routed, no record may have asked for one, or needed some of the router.
    """
    at_rest = {Role.A} if local_steps == 1 and _no_b(before.factors) else set()
    if before.factors.only({Role.GATE}) and before.factors.only({Role.A}):
        at_rest |= {Role.A, Role.B, Role.GATE}
    still = [
        k
        for k, t in mean.first.items()
        if torch.equal(t.to(before.factors[k].dtype), before.factors[k])
    ]
    moved = {stack_key(k) for k in mean.first.keys() - set(still)}
    return [str(k) for k in still if k.role not in at_rest and stack_key(k) not in moved]


def _no_b(factors: Factors) -> bool:
    return not any(t.any() for t in factors.only({Role.B}).values())


def _type(factors: Factors, site: str) -> torch.dtype:
    """Of the site's own tensors: float32, whatever the base is kept in."""
    return next(t.dtype for k, t in factors.items() if k.site == site)


def _pairs(factors: Factors) -> dict[str, Matrix]:
    """Every pair that is not zero, as a product."""
    pairs = {site: factors.pair(site) for site in factors.pair_sites()}
    return {site: pair for site, pair in pairs.items() if pair.left.any() and pair.right.any()}


def _afresh(experiment: Experiment, factors: Factors, round: int) -> tuple[Factors, dict[Key, int]]:
    """New pairs for ``round``, and the seed that draws them."""
    seed = experiment.pair_seed(round)
    pairs = experiment.draw(seed).only({Role.A, Role.B})
    return factors.updated(pairs), dict.fromkeys(pairs, seed)


def _weight(result: ClientUpdate, experiment: Experiment) -> float:
    """What a contribution counts for: from one record to a multiple of what was declared.

    Raises:
        RefusedUpdateError: if the client was to say so and did not.
    """
    weight = experiment.weights[result.client]
    if weight is not None:
        return weight
    count = result.meters.get(RECORDS)
    if count is None or not math.isfinite(count.total):
        raise RefusedUpdateError("it came without the number of records that is its weight")
    most = MOST_OF_DECLARED * experiment.declared[result.client]
    return min(max(1.0, count.total), most)


def _in_order(
    tasks: Sequence[ClientTask], results: Iterable[ClientUpdate]
) -> Iterator[tuple[ClientTask, ClientUpdate | None]]:
    """Each client's first fitting result, in the order of tasks; early ones wait."""
    asked = {task.client: task for task in tasks}
    early: dict[ClientId, ClientUpdate] = {}
    queue = iter(tasks)
    head = next(queue, None)
    for result in results:
        task = asked.get(result.client)
        fits = task is not None and (result.run, result.round) == (task.run, task.round)
        if not fits or asked.pop(result.client, None) is None:
            continue
        early[result.client] = result
        while head is not None and head.client in early:
            yield head, early.pop(head.client)
            head = next(queue, None)
    while head is not None:
        yield head, early.pop(head.client, None)
        head = next(queue, None)
