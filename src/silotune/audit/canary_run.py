"""Canary run: a transcript of a run with canaries in it, and how well they are recognised.

The run is real (``transcript``), and its steps are released one by one, which is what the
accountant prices. The method's own schedule, what it keeps at home and the server's rule are not
attacked here: all that trains moves in every round, and the server takes the mean.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from silotune.aggregation import Mean
from silotune.core import Phase, RoundPlan, generator
from silotune.privacy import Correlated, ExampleLevel, Poisson, Rotation, TruncatedPoisson
from silotune.privacy.mechanisms.sampling import Sampling
from silotune.schedules import Constant
from silotune.terms import BuiltModel

from .canaries import CanaryObjective, NumberCanaries, Subset, probed_layers, slots
from .coins import rate_of
from .one_run import Guesses, evidence, fair_coins, guess
from .transcript import Course, audited, transcribed

MOST_CANARIES, MOST_WORK = 10_000, 2e9
"""Canaries, and numbers that the gradients of all their steps have together."""

STRENGTH = 1000.0
"""A canary's raw gradient in units of C."""

MICRO_BATCH = 256

ENOUGH_CANARIES, MOST_STEPS = 4000, 400
"""In all runs together, if so many steps are enough for them."""

CALIBRATED_STEPS, CALIBRATED_NOISE = 4, 1.3
"""Of a calibrated run: its epsilon is that of one step with mu a little above 1."""

SILOS = ("first", "second")
"""Each has canaries of its own."""


def smoke(
    model: BuiltModel, mechanism: ExampleLevel, steps: int, claim: float, delta: float
) -> Guesses:
    """Train on canaries that are in by fair coins, and guess which are.

    A small model has room for few canaries, so it trains several times, on fresh ones.

    Args:
        model: its tensors are overwritten.
        mechanism: of every silo; secret draws, so not one with a seed.
        steps: rounds of one step each.
        claim: epsilon of the run.
        delta: of the claim.
    """
    canaries = _canaries(model, mechanism, steps)
    m = len(canaries.layer)
    times = min(math.ceil(ENOUGH_CANARIES / len(SILOS) / m), max(1, MOST_STEPS // steps))
    inside, odds = list[Tensor](), list[Tensor]()
    for _ in range(times):
        present = {silo: fair_coins(m) for silo in SILOS}
        inside += present.values()
        odds += _odds(model, mechanism, steps, canaries, present)
    return guess(torch.cat(odds), torch.cat(inside), claim, delta)


def _odds(
    model: BuiltModel,
    mechanism: ExampleLevel,
    steps: int,
    canaries: NumberCanaries,
    inside: Mapping[str, Tensor],
) -> list[Tensor]:
    """Of every silo's canaries, in the order of silos."""
    roles = model.axes.trained()
    layers = probed_layers(model.trainer.adapted, roles)
    course = Course(rounds=steps, local_steps=1, micro_batch=MICRO_BATCH)
    records = {
        silo: (Subset(canaries, present.nonzero().flatten().tolist()), mechanism)
        for silo, present in inside.items()
    }
    with tempfile.TemporaryDirectory() as home:
        trainer, silos = audited(model, CanaryObjective(layers), course, records, Path(home))
        always = RoundPlan(phases=(Phase(roles=roles),), share=roles)
        transcript = transcribed(
            model, trainer, silos, course, schedule=Constant(always), aggregator=Mean()
        )
    return [
        evidence(
            transcript.of(silo),
            canaries,
            unit=mechanism.max_grad_norm / mechanism.expected_batch_size,
            rate=rate_of(mechanism),
            sigma=mechanism.noise.multiplier,
        )
        for silo in inside
    ]


def calibrated(mechanism: ExampleLevel) -> ExampleLevel:
    """The same with every second record in a step, and the noise of an audit."""
    sampling: Sampling
    match mechanism.sampling:
        case Poisson():
            sampling = Poisson(0.5)
        case TruncatedPoisson():
            sampling = TruncatedPoisson(0.5, MOST_CANARIES, MOST_CANARIES)
        case Rotation():
            sampling = Rotation(2)
    noise = replace(mechanism.noise, multiplier=CALIBRATED_NOISE)
    if isinstance(noise, Correlated):
        noise = replace(noise, bands=min(noise.bands, 2))
    return replace(mechanism, sampling=sampling, noise=noise)


def _canaries(model: BuiltModel, mechanism: ExampleLevel, steps: int) -> NumberCanaries:
    adapted = model.trainer.adapted
    adapted.load(model.first)
    most = min(MOST_CANARIES, int(MOST_WORK / (steps * rate_of(mechanism) * model.trained)) + 1)
    if isinstance(mechanism.sampling, TruncatedPoisson):
        most = min(most, mechanism.sampling.places)  # others would have no place
    roles = model.axes.trained()
    strength = STRENGTH * mechanism.max_grad_norm
    return slots(adapted, model.first, roles, most, strength, generator("canaries"))
