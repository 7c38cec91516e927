"""Plan: what a run will cost, silo by silo, before anything trains.

Sizes of messages are those of the messages themselves, with made-up updates in them; records are
read only where the configuration does not declare what they would tell.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from silotune.config import Config
from silotune.core import ClientId
from silotune.engine import EVERY_CLIENT, Experiment
from silotune.engine.communication import Bytes, traffic
from silotune.privacy import AnyCharge, ClientMechanism, ServerMechanism
from silotune.privacy.accounting.accountant import epsilon_by_round
from silotune.reports.tables import PlanRow

from .build import BuiltModel, open_model
from .federation import build_experiment, model_state
from .inputs import known_labels, read_tables
from .mechanisms import beside_training, central_mechanism, declared_sizes, mechanisms

RUN = "0" * 12
"""As long as the name of a run, which messages carry."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What will happen if every silo takes part in every round.

    Attributes:
        silos: one row each.
        epsilon: silo -> epsilon after 1, 2, ... rounds; empty without privacy.
        rounds: planned.
        local_steps: of each silo in a round.
        trained: numbers that a silo trains and sends.
        total: numbers of the adapted model.
        bytes_up: from all silos, in all rounds.
        bytes_down: to all silos, in all rounds.
        averaged: the noise of a silo is so much smaller in the mean over silos.
        notices: what the user should know.
    """

    silos: tuple[PlanRow, ...]
    epsilon: Mapping[str, list[float]]
    rounds: int
    local_steps: int
    trained: int
    total: int
    bytes_up: int
    bytes_down: int
    averaged: float
    notices: tuple[str, ...]


def forecast(config: Config) -> Forecast:
    """Plan a run; nothing trains and nothing is written.

    Raises:
        ValueError: in words, naming the key of the configuration.
    """
    labels, sizes, notices = _public(config)
    model = open_model(config, labels)
    experiment = build_experiment(config, model, sizes, RUN, central_mechanism(config, len(sizes)))
    sent = traffic(experiment, model_state(model))
    curves = _curves(config, experiment.central, mechanisms(config, sizes))
    if experiment.central.private:
        rows: tuple[PlanRow, ...] = (_row_of_all(config, model, experiment, sent, curves),)
    else:
        rows = tuple(_row(config, model, sizes[c], c, sent, curves) for c in experiment.clients)
    declared = [weight or sizes[name] for name, weight in experiment.weights.items()]
    weights = [weight / sum(declared) for weight in declared]
    rounds = config.train.num_rounds
    return Forecast(
        silos=rows,
        epsilon={name: curve for name, (_, curve) in curves.items() if curve},
        rounds=rounds,
        local_steps=config.train.local_steps,
        trained=model.trained,
        total=model.total,
        bytes_up=sum(each.up for of_round in sent for each in of_round.values()),
        bytes_down=sum(each.down for of_round in sent for each in of_round.values()),
        averaged=math.hypot(*weights),
        notices=(*notices, *model.loaded.notices),
    )


Traffic = Sequence[Mapping[str, Bytes]]
"""Of every client, round by round."""

Curves = Mapping[str, tuple[AnyCharge | None, list[float]]]
"""Silo -> the price of a round, and epsilon after each; None and nothing without privacy."""


def _public(config: Config) -> tuple[tuple[str, ...], dict[str, int], tuple[str, ...]]:
    """Labels, declared sizes and notices; records are read only if they alone can tell."""
    labels, names = known_labels(config), _names(config)
    if labels is not None and names:
        sizes, said = declared_sizes(config, dict.fromkeys(names, 0))
        return labels, sizes, tuple(said)
    prepared = read_tables(config)
    records = {name: len(silo.train) for name, silo in prepared.silos.items()}
    sizes, said = declared_sizes(config, records)
    return prepared.labels, sizes, (*prepared.notices, *said)


def _names(config: Config) -> list[str]:
    """The silos, as far as the configuration alone tells who they are and what they declare."""
    declared, num = config.data.num_examples, config.data.silos.num
    if isinstance(declared, Mapping):
        return list(declared)
    if declared is None or num is None:
        return []
    digits = len(str(num - 1))  # as the data names them
    return [f"silo-{i:0{digits}}" for i in range(num)]


def _curves(
    config: Config, hidden: ServerMechanism, privacy: Mapping[str, ClientMechanism]
) -> Curves:
    train, delta = config.train, config.privacy.target_delta

    @functools.cache
    def curve(charge: AnyCharge | None) -> list[float]:
        if charge is None:
            return []
        return epsilon_by_round(
            charge,
            train.num_rounds,
            delta,
            relation=config.privacy.relation,
            besides=beside_training(config),
        )

    charges = {name: mechanism.charge(train.local_steps) for name, mechanism in privacy.items()}
    if hidden.private:
        charges = {EVERY_CLIENT: hidden.charge()}
    return {name: (charge, curve(charge)) for name, charge in charges.items()}


def _mean(sent: Traffic, name: str) -> Bytes:
    """Bytes of a client, or of all of them, in an average round."""
    ups, downs = zip(*(of_round[name] for of_round in sent), strict=True)
    return Bytes(round(sum(ups) / len(ups)), round(sum(downs) / len(downs)))


def _row(
    config: Config, model: BuiltModel, size: int, client: ClientId, sent: Traffic, curves: Curves
) -> PlanRow:
    train, per_round = config.train, _mean(sent, client)
    charge, curve = curves[client]
    sigma = charge.noise_multiplier if charge else 0.0
    return PlanRow(
        silo=str(client),
        num_examples=size,
        sampling_rate=train.batch_size / size,
        noise_multiplier=sigma,
        noise_to_signal=sigma * math.sqrt(model.trained) / train.batch_size,
        steps=train.num_rounds * train.local_steps,
        epsilon=curve[-1] if curve else math.inf,
        delta=config.privacy.target_delta if charge else math.nan,
        bytes_up=per_round.up,
        bytes_down=per_round.down,
    )


def _row_of_all(
    config: Config,
    model: BuiltModel,
    experiment: Experiment,
    sent: Traffic,
    curves: Curves,
) -> PlanRow:
    """Clients that the server hides are all alike: steps are rounds, sizes their number."""
    charge, curve = curves[EVERY_CLIENT]
    assert charge is not None
    sigma, rate = charge.noise_multiplier, experiment.central.sampling_rate
    clients = len(experiment.clients)
    per_round = _mean(sent, EVERY_CLIENT)
    return PlanRow(
        silo=EVERY_CLIENT,
        num_examples=clients,
        sampling_rate=rate,
        noise_multiplier=sigma,
        noise_to_signal=sigma * math.sqrt(model.shared) / (rate * clients),
        steps=config.train.num_rounds,
        epsilon=curve[-1],
        delta=config.privacy.target_delta,
        bytes_up=per_round.up,
        bytes_down=per_round.down,
    )
