"""Canary run: one run of the whole pipeline with canaries in it, as an audit needs it.

The run is real: silo, coins, gradients, noise, ledger, messages, server. Only the records are made
up, steps are released one by one, which is what the accountant prices, and the optimiser is plain
SGD, so that an adversary can read them; any other would be post-processing.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from silotune.core import ClientId, GlobalState, Phase, RoundPlan, generator
from silotune.engine import Client, ClientAgreement, Experiment, federate
from silotune.methods import Axes
from silotune.optim import SGD
from silotune.privacy import Correlated, ExampleLevel, Poisson, Rotation, TruncatedPoisson
from silotune.privacy.mechanisms.sampling import Sampling
from silotune.runtimes import InProcess
from silotune.schedules import Constant
from silotune.terms import BuiltModel

from .canaries import CanaryObjective, NumberCanaries, Subset, probed_layers, slots
from .one_run import Guesses, evidence, fair_coins, guess

MOST_CANARIES, MOST_WORK = 10_000, 2e9
"""Canaries, and numbers that the gradients of all their steps have together."""

STRENGTH = 1000.0
"""A canary's raw gradient in units of C."""

MICRO_BATCH = 256

ENOUGH_CANARIES, MOST_STEPS = 4000, 400
"""In all runs together, if so many steps are enough for them."""

CALIBRATED_STEPS, CALIBRATED_NOISE = 4, 1.3
"""Of a calibrated run: its epsilon is that of one step with mu a little above 1."""

_SILO = ClientId("canaries")


def smoke(
    model: BuiltModel, mechanism: ExampleLevel, steps: int, claim: float, delta: float
) -> Guesses:
    """Train on canaries that are in by fair coins, and guess which are.

    A small model has room for few canaries, so it trains several times, on fresh ones.

    Args:
        model: its tensors are overwritten.
        mechanism: of the one silo; secret draws, so not one with a seed.
        steps: rounds of one step each.
        claim: epsilon of the run.
        delta: of the claim.
    """
    canaries = _canaries(model, mechanism, steps)
    times = min(math.ceil(ENOUGH_CANARIES / len(canaries.layer)), max(1, MOST_STEPS // steps))
    inside = [fair_coins(len(canaries.layer)) for _ in range(times)]
    odds = [_odds(model, mechanism, steps, canaries, present) for present in inside]
    return guess(torch.cat(odds), torch.cat(inside), claim, delta)


def _odds(
    model: BuiltModel, mechanism: ExampleLevel, steps: int, canaries: NumberCanaries, inside: Tensor
) -> Tensor:
    start = GlobalState(round=0, factors=model.first)
    with tempfile.TemporaryDirectory() as home:
        silo = Client(
            client=_SILO,
            train=Subset(canaries, inside.nonzero().flatten().tolist()),
            held_out=None,
            privacy=mechanism,
            home=Path(home),
        )
        return evidence(
            start,
            _states(model, silo, start, steps),
            canaries,
            unit=mechanism.max_grad_norm / mechanism.expected_batch_size,
            rate=rate(mechanism),
            sigma=mechanism.noise.multiplier,
        )


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


def rate(mechanism: ExampleLevel) -> float:
    """Chance of a record to be in a step."""
    sampling = mechanism.sampling
    return 1.0 / sampling.turns if isinstance(sampling, Rotation) else sampling.rate


def _canaries(model: BuiltModel, mechanism: ExampleLevel, steps: int) -> NumberCanaries:
    adapted = model.trainer.adapted
    adapted.load(model.first)
    most = min(MOST_CANARIES, int(MOST_WORK / (steps * rate(mechanism) * model.trained)) + 1)
    if isinstance(mechanism.sampling, TruncatedPoisson):
        most = min(most, mechanism.sampling.places)  # others would have no place
    roles = model.axes.trained()
    strength = STRENGTH * mechanism.max_grad_norm
    return slots(adapted, model.first, roles, most, strength, generator("canaries"))


def _states(
    model: BuiltModel, silo: Client, start: GlobalState, steps: int
) -> Iterator[GlobalState]:
    """The server's states, one a step."""
    sgd = SGD(lr=1.0)
    roles = model.axes.trained()
    trainer = replace(
        model.trainer,
        objective=CanaryObjective(probed_layers(model.trainer.adapted, roles)),
        optimizer=sgd,
        micro_batch=MICRO_BATCH,
    )
    experiment = Experiment(
        run="audit",
        axes=_plain(model.axes, sgd),
        weights={silo.client: 1.0},
        rounds=steps,
        local_steps=1,
        linear_decay=False,
        seed=0,
        draw=model.trainer.draw,
        fixed=model.fixed,
        quorum=1,
        private=True,
    )
    agreement = ClientAgreement(
        client=silo.client,
        experiment=experiment,
        first=model.first,
        base=model.digest,
        mechanism=repr(silo.privacy),
        clips=True,
    )
    runtime = InProcess(trainer, {silo.client: replace(silo, agreement=agreement)})
    return (done.state for done in federate(experiment, runtime, start))


def _plain(axes: Axes, sgd: SGD) -> Axes:
    """All that trains moves and is seen in every round, so that an adversary can read it.

    The method's own schedule, what it keeps at home and the server's rule are not attacked.
    """
    roles = axes.trained()
    always = RoundPlan(phases=(Phase(roles=roles),), share=roles)
    return Axes(schedule=Constant(always), optimizer=sgd, adapter=axes.adapter)
