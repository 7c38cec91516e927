"""Sensitivity: how far one record moves what a silo sends, with hardly any noise in the way.

In one round of the real loop there are two silos for each canary. Both hold two ordinary records
and a partner whose raw gradient is a thousand times C; the second also holds the canary, three
times as strong and against the partner. So clipping must bind, averaging the two before clipping
shows, and so does a denominator that counts records. Micro-batches hold two records each. By the
claim the messages of the two differ by C / b for each step that trains what the canary moves, and
in the tensors of one role by no more than that for each step that trains them.

There is a canary for every trained tensor by itself, and one for all of them in equal parts. The
noise multiplier is so small that the comparison is exact to a hundredth, whatever sigma a run has.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from silotune.aggregation import Mean
from silotune.core import Factors, Key, Role, RoundPlan, generator
from silotune.engine.batches import to_device
from silotune.objectives import PerExampleLoss
from silotune.privacy import (
    ClientMechanism,
    Correlated,
    ExampleLevel,
    Poisson,
    Rotation,
    TruncatedPoisson,
)
from silotune.schedules import Constant
from silotune.terms import BuiltModel

from .canaries import (
    RETURNS,
    STRENGTH,
    CanaryObjective,
    Prepared,
    Strengthened,
    away_from_zero,
    probed_layers,
    random_probes,
    tensor_probe,
)
from .checks import Check
from .transcript import Course, audited, steps_by_role, transcribed

TINY = 1e-5
"""Noise multiplier: it makes the noise of all numbers together small beside C."""

CREEP = 1e-3
"""How far one record moves the tensors in a step: so little that gradients stay what they were."""

HUGE = 1000.0
"""Raw gradient of the partner in units of C; the canary's is three times as long."""

SLACK = 1.02
"""Times the claim: what single precision and ``CREEP`` may add."""

SEEN = 0.5
"""Times the claim: a canary that moves less than this has not been seen."""

EVERYTHING = "every tensor"
"""Name of the canary that moves all of them."""


class Certain(ClientMechanism, Protocol):
    """A silo's mechanism with every record in every step, and noise of ``TINY``."""

    @property
    def expected_batch_size(self) -> float:
        """b, the denominator."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Canary:
    """A record to be recognised, and company for it.

    Attributes:
        name: what it moves.
        objective: with strengths.
        rows: an ordinary record and the canary.
        moves: role of the tensor in which it has a gradient; None for all.
    """

    name: str
    objective: PerExampleLoss
    rows: Mapping[str, Tensor]
    moves: Role | None


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What one canary did.

    Attributes:
        canary: its name.
        measured: how far it moved tensors of its role in a message, in units of C / b.
        claimed: by how much it may: the steps that train what it moves.
        blur: what noise may have added, but for one case in 10^9.
    """

    canary: str
    measured: float
    claimed: int
    blur: float

    @property
    def too_far(self) -> bool:
        """Whether it moved the message further than it may."""
        return self.measured > SLACK * self.claimed + self.blur

    @property
    def unseen(self) -> bool:
        """Whether it hardly moved it, so that nothing is known."""
        return self.measured < SEEN * self.claimed


def effects(
    model: BuiltModel,
    mechanism: Certain,
    plan: RoundPlan,
    steps: int,
    whole: tuple[PerExampleLoss, Mapping[str, Tensor]] | None = None,
) -> list[Effect]:
    """Measure all canaries in a round of one plan.

    Args:
        model: its tensors are overwritten.
        mechanism: one of ``certain``'s.
        plan: of the round.
        steps: of each silo.
        whole: an objective and a batch of two records or more; with them the one canary goes
            through the whole model, and no probe is made. Needed where layers ask a router.
    """
    start = away_from_zero(model.first)
    trained = [key for key in start if key.role in plan.trained() and key not in plan.fixed]
    canaries = _through_model(*whole) if whole else _probes(model, start, trained)
    found: list[Effect] = []
    for canary in canaries:
        found += _measured(model, mechanism, plan, steps, start, trained, canary)
    return found


def effect_checks(found: Sequence[Effect]) -> list[Check]:
    """One a canary: moved too far is impossible."""
    return [
        Check(
            f"a record on {e.canary} moves a message by {e.measured / e.claimed:.3g} times C / b a "
            f"step",
            float(not e.too_far),
        )
        for e in found
    ]


def certain(mechanism: ExampleLevel) -> ExampleLevel:
    """The same with every record in every step, and hardly any noise."""
    noise = replace(mechanism.noise, multiplier=TINY)
    if isinstance(noise, Correlated):
        return replace(mechanism, sampling=Rotation(1), noise=noise)
    sampling: Poisson | TruncatedPoisson = Poisson(1.0)
    if isinstance(mechanism.sampling, TruncatedPoisson):
        sampling = replace(mechanism.sampling, rate=1.0, largest=4, places=4)
    return replace(mechanism, sampling=sampling, noise=noise)


def _probes(model: BuiltModel, start: Factors, trained: Sequence[Key]) -> Iterator[Canary]:
    adapted = model.trainer.adapted
    layers = probed_layers(adapted, {key.role for key in trained})
    objective = Strengthened(CanaryObjective(layers))
    g = generator("audit", "sensitivity")
    ordinary = random_probes(layers, 1, g)

    def canary(name: str, record: Mapping[str, Tensor], moves: Role | None) -> Canary:
        rows = {part: torch.cat([t, record[part]]) for part, t in ordinary.items()}
        return Canary(name=name, objective=objective, rows=rows, moves=moves)

    together = random_probes(layers, 1, g)
    adapted.load(start)
    gradients = _gradient(model, objective, together, 0, trained)
    for name in layers:
        length = _length([t for key, t in gradients.items() if key.site == name])
        together[RETURNS + name] = together[RETURNS + name] / max(length, 1e-30)
    yield canary(EVERYTHING, together, None)
    for key in trained:
        if key.site in layers:
            yield canary(str(key), tensor_probe(layers, key, start, g), key.role)


def _through_model(objective: PerExampleLoss, rows: Mapping[str, Tensor]) -> Iterator[Canary]:
    pair = {name: t[:2] for name, t in rows.items()}
    yield Canary(
        name="whatever its loss moves", objective=Strengthened(objective), rows=pair, moves=None
    )


def _measured(
    model: BuiltModel,
    mechanism: Certain,
    plan: RoundPlan,
    steps: int,
    start: Factors,
    trained: Sequence[Key],
    canary: Canary,
) -> Iterator[Effect]:
    model.trainer.adapted.load(start)
    bound, batch = mechanism.max_grad_norm, mechanism.expected_batch_size
    lengths = [
        _length([*_gradient(model, canary.objective, canary.rows, i, trained).values()])
        for i in (0, 1)
    ]
    count = steps_by_role(plan, steps)
    claimed = steps if canary.moves is None else count[canary.moves]
    if not claimed or not lengths[1]:
        return
    weak, strong = 0.1 * bound / max(lengths[0], 1e-30), HUGE * bound / lengths[1]
    strengths = [weak, -weak / 2, -strong, 3.0 * strong]
    records = Prepared(canary.rows, [0, 0, 1, 1], strengths)
    course = Course(rounds=1, local_steps=steps, learning_rate=CREEP * batch / bound, micro_batch=2)
    without = replace(records, chosen=records.chosen[:3], strengths=strengths[:3])
    with tempfile.TemporaryDirectory() as home:
        trainer, silos = audited(
            model,
            canary.objective,
            course,
            {"with": (records, mechanism), "without": (without, mechanism)},
            Path(home),
        )
        transcript = transcribed(
            model, trainer, silos, course, start=start, schedule=Constant(plan), aggregator=Mean()
        )
    [first, second] = transcript.messages
    seen = [key for key in first.moved if canary.moves in (None, key.role)]
    change = np.concatenate([first.moved[key] - second.moved[key] for key in seen])
    yield Effect(
        canary=canary.name,
        measured=float(np.linalg.norm(change)) * batch / bound,
        claimed=claimed,
        blur=TINY * (2.0 * steps) ** 0.5 * (len(change) ** 0.5 + 6.0),
    )


def _gradient(
    model: BuiltModel,
    objective: PerExampleLoss,
    rows: Mapping[str, Tensor],
    row: int,
    trained: Sequence[Key],
) -> dict[Key, Tensor]:
    """One record's, by autograd alone, at the tensors that are loaded."""
    adapted = model.trainer.adapted
    adapted.train_only({key.role for key in trained})
    one = {name: t[row : row + 1] for name, t in rows.items()} | {STRENGTH: torch.ones(1)}
    for parameter in adapted.tensors.values():
        parameter.grad = None
    loss = adapted.losses(objective.losses, to_device(one, adapted.device)).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    found = {}
    for key in trained:
        grad = adapted.tensors[key].grad
        found[key] = torch.zeros(1) if grad is None else grad.detach().clone()
        adapted.tensors[key].grad = None
    return found


def _length(parts: Sequence[Tensor]) -> float:
    return float(sum(float(t.double().square().sum()) for t in parts) ** 0.5)
