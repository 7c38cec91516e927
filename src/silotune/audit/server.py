"""The two-world audit of a server that hides whole clients: can one client be told from none?

As ``step`` does with a training step, here with what a central mechanism does to the clients'
contributions (``ServerMechanism.bound`` and ``ServerMechanism.mean``). The canary client sends a
change of thousands of S, its partner the opposite, two others something small; all of them are in
the cohort.

Shapes: P numbers released.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from silotune.core import Factors, Statistics, generator
from silotune.linalg import add, dense
from silotune.privacy import NoiseState
from silotune.privacy.mechanisms.secure_rng import KEY_BYTES
from silotune.privacy.mechanisms.server import Release, RoundStart, ServerMechanism

from .lower_bounds import Numbers, two_worlds
from .step import HUGE, TRIALS, Attack


def audit_server(
    central: ServerMechanism, shared: Statistics, delta: float, *, trials: int = TRIALS
) -> list[Attack]:
    """Attack one round's release.

    Args:
        central: audited as it is, with secret draws: every trial is the first round of a run of
            its own. Compare with the price at a sampling rate of 1.
        shared: what a client that changes nothing would send, with weight 1.
        delta: of the claim.
        trials: in each world.
    """
    huge = HUGE * central.clipping_norm({})
    canary, small = _direction(shared, "canary"), _direction(shared, "others")
    direction = _flat(canary)
    company = [_sent(shared, small, 0.1), _sent(shared, small, -0.2), _sent(shared, canary, -huge)]

    before = RoundStart(0, shared, {})

    def scores(sent: Sequence[Statistics]) -> Numbers:
        bounded = [central.bound(one, before) for one in sent]
        total = sum(bounded[1:], bounded[0])

        def score() -> Tensor:
            draws = central.draws(before.round, NoiseState(os.urandom(KEY_BYTES), before.round))
            release = central.mean(total, before, draws)
            change = _change(release, shared)
            norm = torch.tensor(central.clipping_norm(release.memory), dtype=torch.float64)
            return torch.stack([torch.dot(change, direction), change.norm(), norm])

        return np.asarray(torch.stack([score() for _ in range(trials)]))

    absent, present = scores(company), scores([*company, _sent(shared, canary, 3 * huge)])
    bounds = two_worlds(absent, present, delta)
    return [Attack(canary="everything that is shared", trials=trials, bounds=bounds)]


def _direction(shared: Statistics, name: str) -> Statistics:
    """A random change of length 1."""
    g = generator("audit", name)
    change = Statistics(
        weight=1.0,
        first=shared.first.map(lambda t: torch.randn(t.shape, generator=g, dtype=torch.float64)),
        product={
            site: torch.randn(tuple(m.shape), generator=g, dtype=torch.float64)
            for site, m in shared.product.items()
        },
    )
    length = _flat(change).norm()
    return Statistics(
        weight=1.0,
        first=change.first.map(lambda t: t / length),
        product={site: dense(m) / length for site, m in change.product.items()},
    )


def _sent(shared: Statistics, direction: Statistics, by: float) -> Statistics:
    return Statistics(
        weight=1.0,
        first=shared.first.zip(direction.first, lambda x, u: x + by * u),
        product={s: add(m, direction.product[s] * by) for s, m in shared.product.items()},
    )


def _change(release: Release, shared: Statistics) -> Tensor:
    """(P,) how far the mean moved."""
    first = release.mean.first.zip(shared.first, lambda now, before: now - before)
    product = {s: dense(m) - dense(shared.product[s]) for s, m in release.mean.product.items()}
    return _flat(Statistics(weight=1.0, first=Factors(first), product=product))


def _flat(statistics: Statistics) -> Tensor:
    parts = [*statistics.first.values(), *(dense(m) for m in statistics.product.values())]
    return torch.cat([t.double().flatten() for t in parts])
