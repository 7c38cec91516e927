"""Noise over signal of a round: what is foretold is what the engine's noise really comes to."""

import math
from dataclasses import replace
from functools import reduce
from operator import add

import pytest
import torch

import toys
from federation.small import PRIVATE, small, train
from silotune.aggregation.fedopt import ServerMomentum, ServerOptimizer
from silotune.core import Statistics
from silotune.core.files import read_lines
from silotune.engine.local_training import local_training
from silotune.engine.loop import make_tasks
from silotune.engine.server import server_step
from silotune.federation.round_noise import RoundNoise, round_noise
from silotune.federation.run import update_norm
from silotune.optim import SGD, AdamW
from silotune.optim.learning_rate import LearningRateSchedule
from silotune.privacy import (
    ClientLevel,
    Correlated,
    Discrete,
    ExampleLevel,
    Gaussian,
    NoPrivacy,
    Poisson,
    Rotation,
)
from silotune.privacy.mechanisms.server import RoundStart

NOBODY = Poisson(1e-12)
"""No record is ever drawn, so that a step is noise alone."""


@pytest.fixture
def float64():
    """So that a change is the noise to the last digits."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def mechanism(noise, sampling=NOBODY, seed=0, clip=0.7):
    return ExampleLevel(
        sampling=sampling,
        noise=noise,
        max_grad_norm=clip,
        expected_batch_size=5.0,
        insecure_seed=seed,
    )


def setting(name="ffa-lora", optimizer=None, **changes):
    """Two clients of weights 1 and 2, and the state before round 0."""
    axes = toys.axes(name, optimizer or SGD(lr=0.3))
    clients = toys.silos(2)
    exp = toys.experiment(axes, list(clients), **changes)
    return exp, clients, toys.trainer(axes), toys.begin(axes)


def changed(exp, trainer, clients, mechanisms, state):
    """The norm of what one round of the engine changes, and the state after it."""

    def trained(task):
        client = replace(clients[task.client], privacy=mechanisms[task.client])
        end = local_training(task, trainer, client, state.factors).factors
        return Statistics.of(task.plan.shared(end), exp.weights[task.client])

    tasks = make_tasks(exp, exp.clients, state)
    after, _ = server_step(exp, state, reduce(add, map(trained, tasks)).mean(), ())
    return update_norm(state, after), after


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("name", "kind"),
    [("fedit", Discrete), ("rolora", Gaussian), ("fedsa-lora", Gaussian)],
)
def test_rounds_of_noise_alone_are_as_large_as_foretold(name, kind):
    """Other sigmas and weights, steps, phases, rates that fall; mean and spread over the rounds."""
    rounds = 30
    exp, clients, trainer, state = setting(
        name, rounds=2 * rounds, lr_schedule=LearningRateSchedule(kind="linear")
    )
    scores = []
    for i in range(rounds):
        mechanisms = {
            c: mechanism(kind(sigma), seed=100 * i + n)
            for n, (c, sigma) in enumerate(zip(exp.clients, (1.5, 4.0), strict=True))
        }
        noise = round_noise(exp, mechanisms, state, exp.clients)
        change, state = changed(exp, trainer, clients, mechanisms, state)
        scores.append((change**2 - noise.square) / noise.spread)
    told = torch.tensor(scores)
    assert abs(told.mean()) < 4 / rounds**0.5
    assert 0.5 < told.std() < 1.6


@pytest.mark.usefixtures("float64")
def test_a_number_agrees_with_the_sum_written_out():
    """lr 0.3, clip 0.7, batch 5, two steps, weights 1/3 and 2/3: B of two sites, and the head."""
    exp, _, _, state = setting()
    mechanisms = dict(zip(exp.clients, map(mechanism, (Gaussian(1.5), Gaussian(4.0))), strict=True))
    numbers = 10 * 2 + 6 * 2 + 6 * 3 + 3
    a_number = sum(
        (0.3 * weight * sigma * 0.7 / 5) ** 2
        for _ in range(exp.local_steps)
        for weight, sigma in ((1 / 3, 1.5), (2 / 3, 4.0))
    )
    noise = round_noise(exp, mechanisms, state, exp.clients)
    assert noise.square == pytest.approx(numbers * a_number, rel=1e-12)
    assert noise.spread == pytest.approx(math.sqrt(2 * numbers) * a_number, rel=1e-12)
    unequal = replace(exp, local_steps=dict(zip(exp.clients, (2, 5), strict=True)))
    a_number = (0.3 * 0.7 / 5) ** 2 * (2 * (1.5 / 3) ** 2 + 5 * (2 / 3 * 4.0) ** 2)
    noise = round_noise(unequal, mechanisms, state, exp.clients)
    assert noise.square == pytest.approx(numbers * a_number, rel=1e-12)
    by_step = replace(unequal, reach=sum)  # of plain SGD
    noise = round_noise(by_step, mechanisms, state, exp.clients)
    tau = (2 + 2 * 5) / 3
    a_number = (0.3 * 0.7 / 5 * tau) ** 2 * ((1.5 / 3) ** 2 / 2 + (2 / 3 * 4.0) ** 2 / 5)
    assert noise.square == pytest.approx(numbers * a_number, rel=1e-12)
    alone = round_noise(exp, mechanisms, state, exp.clients[:1])
    assert alone.square == pytest.approx(numbers * 2 * (0.3 * 1.5 * 0.7 / 5) ** 2, rel=1e-12)


@pytest.mark.usefixtures("float64")
def test_the_signal_is_that_of_the_same_round_without_noise():
    """One step on the same records: known signal plus known noise, on average over seeds."""
    everybody = Poisson(1.0)
    exp, clients, trainer, state = setting(local_steps=1)
    silent = dict.fromkeys(exp.clients, mechanism(Gaussian(0.0), everybody))
    signal, _ = changed(exp, trainer, clients, silent, state)
    assert round_noise(exp, silent, state, exp.clients) is None, "there is no noise"
    seeds, found = 50, 0.0
    for seed in range(seeds):
        mechanisms = {
            c: mechanism(Gaussian(0.5), everybody, seed=2 * seed + i)
            for i, c in enumerate(exp.clients)
        }
        noise = round_noise(exp, mechanisms, state, exp.clients)
        change, _ = changed(exp, trainer, clients, mechanisms, state)
        found += (change**2 - noise.square) / seeds
    doubt = math.hypot(noise.spread, 2 * signal * math.sqrt(noise.square / 53)) / seeds**0.5
    assert abs(found - signal**2) < 4 * doubt
    assert doubt < signal**2 / 5, "or the line above says little"


@pytest.mark.usefixtures("float64")
def test_noise_of_the_server_is_as_large_as_foretold():
    server = ClientLevel(
        clients=2,
        sampling=Poisson(0.5),
        noise=Gaussian(1.5),
        max_update_norm=0.4,
        insecure_seed=0,
    )
    exp, _, _, state = setting(
        optimizer=AdamW(lr=0.1), weights=dict.fromkeys(toys.silos(2), 1.0), central=server
    )
    noise = round_noise(exp, {}, state, ())
    shared = Statistics.of(exp.plan(0).shared(state.factors), 1.0)
    before = RoundStart(0, replace(shared, product={}), state.memory)
    squares = []
    for round in range(100):
        mean, _ = server.mean(None, before, server.draws(round, None))
        after, _ = server_step(exp, state, mean, ())
        squares.append(update_norm(state, after) ** 2)
    told = torch.tensor(squares)
    assert noise.square == pytest.approx(53 * (1.5 * 0.4) ** 2)
    assert abs(told.mean() - noise.square) < 4 * noise.spread / 100**0.5
    assert told.std() == pytest.approx(noise.spread, rel=0.3)


@pytest.mark.parametrize(
    ("change", "ratio"),
    [
        (5.0, 3.0 / 4.0),
        (3.0, math.inf),  # nothing is left
        (2.0, math.inf),  # less than the noise: no root of a negative number
        (0.0, math.inf),
        (math.sqrt(9.99), math.inf),  # two spreads, which noise alone reaches now and then
        (math.sqrt(10.01), 3 / math.sqrt(1.01)),
    ],
)
def test_what_noise_alone_explains_is_no_signal(change, ratio):
    assert RoundNoise(square=9.0, spread=0.5).to_signal(change) == pytest.approx(ratio)


UNKNOWN = {
    "momentum": {"optimizer": SGD(lr=0.3, momentum=0.5)},
    "weight decay": {"optimizer": SGD(lr=0.3, weight_decay=0.1)},
    "adamw": {"optimizer": AdamW(lr=0.3)},
    "another rule": {"name": "fedsvd"},
    "a residual": {"name": "fedex-lora"},
    "folded pairs": {"name": "xgblora"},
    "released weights": {"weights": dict.fromkeys(toys.silos(2))},
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_nothing_is_told_of_noise_that_is_not_known(case):
    exp, _, _, state = setting(**UNKNOWN[case])
    mechanisms = dict.fromkeys(exp.clients, mechanism(Gaussian(2.0)))
    assert round_noise(exp, mechanisms, state, exp.clients) is None


def test_nothing_is_told_of_a_servers_optimiser_correlated_noise_and_no_privacy():
    exp, _, _, state = setting()
    private = dict.fromkeys(exp.clients, mechanism(Gaussian(2.0)))
    stepping = ServerOptimizer(inner=exp.axes.aggregator, step=ServerMomentum())
    moved = replace(exp, axes=replace(exp.axes, aggregator=stepping))
    assert round_noise(moved, private, state, exp.clients) is None
    turns = mechanism(Correlated(2.0, bands=2), Rotation(2))
    assert round_noise(exp, dict.fromkeys(exp.clients, turns), state, exp.clients) is None
    mixed = {**private, exp.clients[0]: NoPrivacy(batch_size=4)}
    assert round_noise(exp, mixed, state, exp.clients) is None
    assert round_noise(exp, private, state, exp.clients) is not None


def lines(config, place):
    train(config)
    return read_lines(place.parent / "run" / "metrics.jsonl")


@pytest.mark.usefixtures("same_secrets")
def test_a_private_run_tells_it_of_every_round(place):
    """24 records and a sigma of 2: the noise is larger than what the rounds have in common."""
    start, *rounds = lines(small(place, *PRIVATE), place)
    assert "noise_to_signal" not in start
    ratios = [line["noise_to_signal"] for line in rounds]
    assert len(ratios) == 3
    assert all(ratio is None or ratio > 1 for ratio in ratios)


@pytest.mark.parametrize(
    "overrides", [(), (*PRIVATE, "train.optimizer=adamw", "train.learning_rate=1e-3")]
)
def test_without_noise_or_where_it_is_not_known_there_is_no_such_field(place, overrides):
    written = lines(small(place, *overrides), place)
    assert not any("noise_to_signal" in line for line in written)
