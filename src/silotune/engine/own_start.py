"""Pairs that every client begins at an A of its own (FLoRA's code): drawn, so that nothing travels.

Client and server draw it from the seed of the common A and the client's name. The state holds the
common one: B is 0 beside either, so the model computes the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from silotune.core import ClientTask, Factors, Key, Role, seed_of


def own_start(task: ClientTask, draw: Callable[[int], Factors]) -> Factors:
    """The A that a task's client begins with in place of the common ones; empty if there is none.

    Args:
        task: its seeds are those of tensors that are as drawn.
        draw: all tensors that a seed decides.
    """
    if not task.plan.own_start or Role.A not in task.plan.share:
        return Factors({})
    seeds = {
        key: seed_of(seeded.seed, "own", task.client)
        for seeded in task.seeded
        for key in seeded.keys
        if key.role is Role.A and key not in task.plan.fixed
    }
    return _drawn(seeds, draw).cut(task.rank)


def from_common(update: Factors, own: Factors, common: Factors) -> Factors:
    """What moved, as if it had begun at the common A: for means of changes.

    Args:
        update: what a client sent.
        own: the A that it began with.
        common: those of the state.
    """
    moved = {key: update[key].double() - own[key].double() + common[key].double() for key in own}
    return update.updated(moved)


def _drawn(seeds: Mapping[Key, int], draw: Callable[[int], Factors]) -> Factors:
    born = {seed: draw(seed) for seed in set(seeds.values())}
    return Factors({key: born[seed][key] for key, seed in seeds.items()})
