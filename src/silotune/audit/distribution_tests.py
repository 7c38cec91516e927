"""Exact checks of what a mechanism draws: is there as much noise as claimed, are the coins fair?

Each gives the probability of so bad a result from a mechanism that is in order. They look at the
very draws of training, at the configured sigma and rate, where an attack could see little.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import binom, chi2

from silotune.adapters import AdaptedModel
from silotune.core import Batch, Role
from silotune.privacy import ClientMechanism, NoiseState
from silotune.privacy.mechanisms.secure_rng import KEY_BYTES

LEAST_NUMBERS = 20_000
"""Of noise: enough to see one part in fifty missing."""


class Check(NamedTuple):
    """One comparison.

    Attributes:
        measured: in units of what is claimed; 1 is right.
        chance: of a result as bad as this, if the claim is true.
        draws: how many it rests on.
    """

    measured: float
    chance: float
    draws: int


def noise_check(
    privacy: ClientMechanism, adapted: AdaptedModel, roles: Collection[Role], std: float
) -> Check:
    """Steps without a record release noise alone; its spread must not be below ``std``.

    Args:
        privacy: the mechanism.
        adapted: its gradients are cleared afterwards.
        roles: what is trained.
        std: of each released number, as claimed: sigma C / b.
    """
    tensors = adapted.train_only(roles)
    squares, n, trial = 0.0, 0, 0
    while n < LEAST_NUMBERS:
        draws = privacy.draws(trial, NoiseState(os.urandom(KEY_BYTES), 0))
        privacy.gradients(tensors, adapted.sink, _no_records, [], draws)
        for parameter in tensors.values():
            assert parameter.grad is not None
            squares += float((parameter.grad.double() / std).square().sum())
            n += parameter.numel()
            parameter.grad = None
        trial += 1
    return Check((squares / n) ** 0.5, float(chi2.cdf(squares, n)), n)


def coins_check(
    privacy: ClientMechanism, rate: float, *, records: int, steps: int, largest: int | None = None
) -> Check:
    """No record may be drawn more often than at its rate, nor may batches be of one size.

    Accounting is for independent coins; batches that are cut from a shuffled list vary too little.

    Args:
        privacy: the mechanism; its samples are Poisson, or cut from such.
        rate: as claimed.
        records: to draw from.
        steps: of one round.
        largest: what no batch may exceed, where samples are cut.
    """
    draws = privacy.draws(0, NoiseState(os.urandom(KEY_BYTES), 0))
    sizes = np.array([len(batch) for batch in privacy.batches(records, steps, draws)])
    drawn, expected = int(sizes.sum()), rate * records
    chance = float(binom.sf(drawn - 1, records * steps, rate))
    if largest is not None:
        chance = chance if sizes.max() <= largest else 0.0
    elif rate < 1.0:
        spread = float(((sizes - expected) ** 2).sum()) / (expected * (1.0 - rate))
        chance = min(1.0, 2.0 * min(chance, float(chi2.cdf(spread, steps))))
    return Check(drawn / (expected * steps), chance, records * steps)


def turns_check(privacy: ClientMechanism, turns: int, *, records: int) -> Check:
    """Each record takes part once in every cycle, always at the same turn.

    Args:
        privacy: the mechanism; its samples rotate.
        turns: of a cycle, as claimed.
        records: to draw from.
    """
    draws = privacy.draws(0, NoiseState(os.urandom(KEY_BYTES), 0))
    batches = [tuple(batch) for batch in privacy.batches(records, 2 * turns, draws)]
    first, second = batches[:turns], batches[turns:]
    seen = sorted(i for batch in first for i in batch)
    right = first == second and seen == list(range(records))
    return Check(len(seen) / records, float(right), records)


def _no_records(batch: Batch) -> torch.Tensor:
    raise AssertionError("there is no record")
