"""The two-world audit: can one canary record be told from its absence, and how well?

The very step that trains (``ClientMechanism.gradients``) runs thousands of times in two worlds that
differ in one record, and an adversary who knows everything but the noise tells them apart. What it
achieves bounds epsilon from below (``audit.lower_bounds``); above the claim, the step is broken.

Ordinary records would let many faults pass, so these are the worst we know:
- the canary's raw gradient is thousands of times C, so clipping must bind, and its parts in all
  layers are of equal length, so clipping them one by one adds up;
- beside it lies a partner with the opposite gradient, so that averaging the two before clipping
  doubles what the canary can do;
- the worlds hold three and four records, so a denominator that counts them shows in the length
  of the update;
- where heads are trained beside adapters, another canary moves only the heads and a third only
  the adapters, so a part left out of the norm is not bounded at all.

Shapes: P numbers trained.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from silotune.adapters import AdaptedModel, Head
from silotune.core import Batch, Key, Role, generator
from silotune.engine.batches import to_device
from silotune.objectives import Objective
from silotune.privacy import ClientMechanism, NoiseState
from silotune.privacy.mechanisms.clipping import Losses
from silotune.privacy.mechanisms.secure_rng import KEY_BYTES

from .canaries import (
    RETURNS,
    STRENGTH,
    CanaryObjective,
    Layer,
    Strengthened,
    away_from_zero,
    probed_layers,
    random_probes,
)
from .lower_bounds import CONFIDENCE, Bounds, Numbers, gaussian_epsilon, two_worlds

TRIALS = 2500
"""In each world: so many that mu = 1 gives a bound above 0.5 all but always, 0.7 as a rule."""

HUGE = 1000.0
"""Raw gradients in units of C: the partner's; the canary's is three times as long."""


class Verdict(StrEnum):
    """What an audit found."""

    PASS = "PASS"  # below the claim, and a fault would have been seen
    FAIL = "FAIL"  # above the claim: this is not the mechanism that was promised
    NO_POWER = "NO POWER"  # below the claim, and a fault might have been, too


@dataclass(frozen=True, kw_only=True)
class Attack:
    """What one canary proves.

    Attributes:
        canary: what it moves.
        trials: in each world.
        bounds: with a confidence that holds for all attacks of an audit together.
    """

    canary: str
    trials: int
    bounds: Bounds


class Canary(NamedTuple):
    """A record to be recognised, and company for it.

    Attributes:
        name: what it moves.
        losses: (n,) of such records.
        records: three; the last one is the canary.
    """

    name: str
    losses: Losses
    records: Batch


def audit_step(
    privacy: ClientMechanism,
    adapted: AdaptedModel,
    roles: Collection[Role],
    delta: float,
    *,
    trials: int = TRIALS,
    whole: tuple[Objective, Batch] | None = None,
) -> list[Attack]:
    """Attack one training step with every canary.

    The first canary has all the trials; the others look for gross faults, with a fifth of them.

    Args:
        privacy: audited as it is; every trial is a run of its own. Sampling plays no part here:
            all records are in the batch, so compare with the price at a sampling rate of 1.
        adapted: its tensors are put back afterwards.
        roles: what is trained.
        delta: of the claim.
        trials: in each world.
        whole: an objective and a batch of three records; with them one more canary goes through
            the whole model instead of the adapted layers alone. As slow as training.
    """
    kept, training = adapted.extract(), adapted.model.training
    adapted.load(away_from_zero(kept))
    adapted.model.eval()
    tensors = adapted.train_only(roles)
    try:
        layers = probed_layers(adapted, roles)
        probed = {key.site for key in tensors} <= layers.keys()  # not where a router is trained
        canaries = [*_probe_canaries(adapted, tensors, layers)] if probed else []
        if whole is not None:
            canaries.append(_real_canary(adapted, *whole))
        confidence = 1.0 - (1.0 - CONFIDENCE) / len(canaries)
        attacks = []
        for i, canary in enumerate(canaries):
            n = trials if i == 0 else max(2, trials // 5)
            worlds = _worlds(adapted, tensors, canary, privacy.max_grad_norm)
            scores = _scores(privacy, adapted, tensors, worlds, n)
            bounds = two_worlds(*scores, delta, confidence)
            attacks.append(Attack(canary=canary.name, trials=n, bounds=bounds))
        return attacks
    finally:
        adapted.load(kept)
        adapted.model.train(training)
        for parameter in tensors.values():
            parameter.grad = None


def verdict(attacks: Sequence[Attack], claim: float, delta: float) -> Verdict:
    """Compare with the claimed epsilon.

    An audit has power if half the noise, which doubles mu, would have been found out.
    """
    most = max(max(a.bounds.gaussian, a.bounds.distribution_free) for a in attacks)
    if most > claim:
        return Verdict.FAIL
    twice = max(gaussian_epsilon(2.0 * a.bounds.mu, delta) for a in attacks)
    return Verdict.PASS if twice > claim else Verdict.NO_POWER


class _Worlds(NamedTuple):
    """Two neighbouring data sets, each as the micro-batch of one step, and where to look."""

    losses: Losses
    absent: Batch
    present: Batch
    directions: Tensor  # (d, P), float64, rows of length 1


def _probe_canaries(
    adapted: AdaptedModel, tensors: Mapping[Key, nn.Parameter], layers: Mapping[str, Layer]
) -> Iterator[Canary]:
    """On every layer; where there are both, on the heads alone and on the adapters alone."""
    heads = {name for name, layer in layers.items() if isinstance(layer, Head)}
    yield _probe_canary("every layer", adapted, tensors, layers, layers.keys())
    if heads and heads != layers.keys():
        yield _probe_canary("the heads alone", adapted, tensors, layers, heads)
        yield _probe_canary("the adapters alone", adapted, tensors, layers, layers.keys() - heads)


def _probe_canary(
    name: str,
    adapted: AdaptedModel,
    tensors: Mapping[Key, nn.Parameter],
    layers: Mapping[str, Layer],
    sites: Collection[str],
) -> Canary:
    """Random probes; the canary's gradient at each of ``sites`` has length 1, and 0 elsewhere."""
    objective = Strengthened(CanaryObjective(layers))

    def losses(batch: Batch) -> Tensor:
        return objective.losses(adapted.model, batch)

    records = random_probes(layers, 3, generator("audit")) | {STRENGTH: torch.ones(3)}
    rows = _rows(adapted, tensors, losses, _cut(records, [2]))
    for layer in layers:
        parts = [r.flatten() for key, r in rows.items() if key.site == layer]
        records[RETURNS + layer][2] *= 1.0 / torch.cat(parts).norm() if layer in sites else 0.0
    return Canary(name, losses, records)


def _real_canary(adapted: AdaptedModel, objective: Objective, batch: Batch) -> Canary:
    real = Strengthened(objective)

    def losses(part: Batch) -> Tensor:
        return adapted.losses(real.losses, part)

    records = _cut(batch, [0, 1, 2]) | {STRENGTH: torch.ones(3)}
    return Canary("whatever its loss moves", losses, records)


def _worlds(
    adapted: AdaptedModel, tensors: Mapping[Key, nn.Parameter], canary: Canary, bound: float
) -> _Worlds:
    """Two ordinary records and the partner; then, in the second world, the canary."""
    rows = _rows(adapted, tensors, canary.losses, _cut(canary.records, [2]))
    even = {key: r / r.norm().clamp(min=1e-30) for key, r in rows.items()}
    gradient, by_tensor = _flat(rows), _flat(even)
    partner = -HUGE * bound / gradient.norm().item()

    def records(*strength: float) -> Batch:
        chosen = _cut(canary.records, [0, 1, *[2] * (len(strength) - 2)])
        return to_device({**chosen, STRENGTH: torch.tensor(strength)}, adapted.device)

    return _Worlds(
        losses=canary.losses,
        absent=records(1.0, 1.0, partner),
        present=records(1.0, 1.0, partner, -3.0 * partner),
        directions=torch.stack([gradient / gradient.norm(), by_tensor / by_tensor.norm()]),
    )


def _scores(
    privacy: ClientMechanism,
    adapted: AdaptedModel,
    tensors: Mapping[Key, nn.Parameter],
    worlds: _Worlds,
    trials: int,
) -> tuple[Numbers, Numbers]:
    """(trials, d + 1) per world: the update along each direction, and its length."""

    def score(records: Batch, seed: int) -> Tensor:
        draws = privacy.draws(seed, NoiseState(os.urandom(KEY_BYTES), 0))
        privacy.gradients(tensors, adapted.sink, worlds.losses, [records], draws)
        update = _flat({key: p.grad for key, p in tensors.items() if p.grad is not None})
        return torch.cat([worlds.directions @ update, update.norm().view(1)])

    absent = [score(worlds.absent, 2 * i) for i in range(trials)]
    present = [score(worlds.present, 2 * i + 1) for i in range(trials)]
    return np.asarray(torch.stack(absent)), np.asarray(torch.stack(present))


def _rows(
    adapted: AdaptedModel, tensors: Mapping[Key, nn.Parameter], losses: Losses, one: Batch
) -> dict[Key, Tensor]:
    """The raw gradient of one record, in the order of ``tensors``."""
    batch = to_device(one, adapted.device)
    with adapted.sink.collect(1) as rows:
        losses(batch).sum().backward()
        return {key: rows[key][0].detach().clone() for key in tensors}


def _cut(batch: Batch, indices: Sequence[int]) -> dict[str, Tensor]:
    return {name: t[list(indices)] for name, t in batch.items()}


def _flat(tensors: Mapping[Key, Tensor]) -> Tensor:
    return torch.cat([t.detach().flatten() for t in tensors.values()]).double().cpu()
