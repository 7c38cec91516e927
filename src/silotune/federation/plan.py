"""Plan: what a run will cost, silo by silo, before anything trains.

Sizes of messages are those of the messages themselves, with made-up updates in them; records are
read only where the configuration does not declare what they would tell.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from silotune.core import ClientId, work_text
from silotune.core.units import count_text, human_bytes
from silotune.engine import EVERY_CLIENT, Experiment
from silotune.engine.communication import Bytes, traffic
from silotune.privacy import AnyCharge
from silotune.privacy.accounting.accountant import epsilon_by_round
from silotune.privacy.planned_charges import beside_training
from silotune.reports.tables import PlanRow, as_text, epsilon_table, plan_table
from silotune.terms import Agreement, BuiltModel, Terms, open_model, short_runs
from silotune.terms.agreement import agree

from .description import Description
from .noise_words import over_the_run, verdict
from .public_numbers import public_numbers, shares
from .settling import settled

RUN = "0" * 12
"""As long as the name of a run, which messages carry."""


MOST_COLUMNS = 6
"""Clients whose epsilon by round fits beside each other."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Plan:
    """What will happen if every silo takes part in every round.

    Attributes:
        silos: one row each.
        epsilon: silo -> epsilon after 1, 2, ... rounds; empty without privacy.
        rounds: planned.
        local_steps: the most of any silo in a round.
        local_epochs: of each silo in a round, if these say its steps.
        optimizer: of these, with its learning rate, for people.
        trained: numbers that a silo trains and sends.
        total: numbers of the adapted model.
        bytes_up: from all silos, in all rounds.
        bytes_down: to all silos, in all rounds.
        noise_to_signal: of the whole run, all silos together: the length of its noise over the
            longest that its signal can be; 0 without noise.
        averaged: the noise of a silo is so much smaller in the mean over silos.
        notices: what the user should know.
    """

    silos: tuple[PlanRow, ...]
    epsilon: Mapping[str, list[float]]
    rounds: int
    local_steps: int
    local_epochs: float | None
    optimizer: str
    trained: int
    total: int
    bytes_up: int
    bytes_down: int
    averaged: float
    noise_to_signal: float
    notices: tuple[str, ...]

    def __repr__(self) -> str:
        """What it will cost, as tables and in words."""
        hidden = any(row.silo == EVERY_CLIENT for row in self.silos)
        shown, left_out = shown_epsilon(self.epsilon)
        return as_text(
            f"{self.trained:,} of {self.total:,} numbers are trained and sent; "
            f"{count_text(self.rounds, 'round')} of "
            f"{work_text(self.local_steps, self.local_epochs)} ({self.optimizer})",
            plan_table(self.silos, "client" if hidden else "example"),
            *([epsilon_table(shown)] if shown else []),
            *left_out,
            f"bytes: {human_bytes(self.bytes_up)} up and {human_bytes(self.bytes_down)} down in "
            "all rounds and clients",
            *([verdict(self.noise_to_signal)] if self.noise_to_signal else []),
            *(f"notice: {notice}" for notice in self.notices),
        )


def shown_epsilon(
    epsilon: Mapping[str, list[float]],
) -> tuple[Mapping[str, list[float]], tuple[str, ...]]:
    """Of the clients that fit beside each other, epsilon by round; and a sentence of the others.

    Args:
        epsilon: of all, by round.
    """
    shown = dict(list(epsilon.items())[:MOST_COLUMNS])
    if len(shown) == len(epsilon):
        return shown, ()
    return shown, (
        f"ε round by round: {len(shown)} of {len(epsilon)} clients are shown; the table above has "
        "the last of all",
    )


def forecast(federation: Description) -> Plan:
    """Plan a run; nothing trains and nothing is written.

    Raises:
        ValueError: in words, naming the field.
    """
    federation = settled(federation)
    terms = federation.terms
    labels, sizes, notices = public_numbers(federation)
    model = open_model(terms, labels, federation.machine, federation.given)
    agreement = agree(terms, model, labels, sizes, {})
    experiment = agreement.experiment(RUN)
    sent = traffic(experiment, model.first_state())
    curves = _curves(agreement, experiment)
    if experiment.central.private:
        rows: tuple[PlanRow, ...] = (_row_of_all(terms, model, experiment, sent, curves),)
    else:
        asked = experiment.asked_in
        rows = tuple(_row(agreement, c, len(asked[c]), sent, curves) for c in experiment.clients)
    weights = shares(experiment, sizes)
    fewer = math.sqrt(len(sizes) / terms.cohorts.expected(len(sizes)))  # less is averaged
    return Plan(
        silos=rows,
        epsilon={name: curve for name, (_, curve) in curves.items() if curve},
        rounds=terms.rounds,
        local_steps=agreement.most_steps,
        local_epochs=terms.local_epochs,
        optimizer=terms.moved_by,
        trained=model.trained,
        total=model.total,
        bytes_up=sum(each.up for of_round in sent for each in of_round.values()),
        bytes_down=sum(each.down for of_round in sent for each in of_round.values()),
        averaged=fewer * math.hypot(*weights),
        noise_to_signal=fewer * _over_the_run(experiment, terms, rows, weights),
        notices=(
            *federation.reasons,
            *notices,
            *model.loaded.notices,
            *short_runs.notices(terms, model.axes, agreement.most_steps),
        ),
    )


def _over_the_run(
    experiment: Experiment, terms: Terms, rows: Sequence[PlanRow], weights: Sequence[float]
) -> float:
    """The server's noise comes once a round, the silos' own in every step."""
    a_step = [row.noise_to_signal for row in rows]
    if experiment.central.private:
        return over_the_run(a_step, [1.0], [terms.rounds])
    steps = [terms.rounds * experiment.steps_of(client) for client in experiment.clients]
    reaches = [experiment.reach_of(client, 0) for client in experiment.clients]
    tau = sum(w * reach for w, reach in zip(weights, reaches, strict=True))
    shares = [w * tau / reach for w, reach in zip(weights, reaches, strict=True)]
    return over_the_run(a_step, shares, steps)


Traffic = Sequence[Mapping[str, Bytes]]
"""Of every client, round by round."""

Curves = Mapping[str, tuple[AnyCharge | None, list[float]]]
"""Silo -> the price of a round, and epsilon after each; None and nothing without privacy."""


def _curves(agreement: Agreement, experiment: Experiment) -> Curves:
    terms, hidden = agreement.terms, agreement.server
    most = max(map(len, experiment.asked_in.values()))

    @functools.cache
    def by_times(charge: AnyCharge) -> list[float]:
        return epsilon_by_round(
            charge,
            most,
            terms.hiding.target_delta,
            relation=terms.hiding.relation,
            besides=beside_training(terms.privacy),
        )

    def curve(account: str, charge: AnyCharge | None) -> list[float]:
        if charge is None:
            return []
        asked, curve = experiment.asked_in.get(ClientId(account)), by_times(charge)
        if asked is None or len(asked) == terms.rounds:
            return curve
        times = accumulate(round in asked for round in range(terms.rounds))
        return [curve[n - 1] if n else 0.0 for n in times]

    accounts = [EVERY_CLIENT] if hidden.private else list(agreement.mechanisms)
    charges = {name: agreement.price(name) for name in accounts}
    return {name: (charge, curve(name, charge)) for name, charge in charges.items()}


def _mean(sent: Traffic, name: str) -> Bytes:
    """Bytes of a client, or of all of them, in an average round."""
    nothing = Bytes(0, 0)
    ups, downs = zip(*(of_round.get(name, nothing) for of_round in sent), strict=True)
    return Bytes(round(sum(ups) / len(ups)), round(sum(downs) / len(downs)))


def _row(
    agreement: Agreement, client: ClientId, rounds: int, sent: Traffic, curves: Curves
) -> PlanRow:
    terms, model, size = agreement.terms, agreement.model, agreement.sizes[client]
    per_round = _mean(sent, client)
    charge, curve = curves[client]
    sigma = charge.noise_multiplier if charge else 0.0
    return PlanRow(
        silo=str(client),
        num_examples=size,
        sampling_rate=terms.batch_size / size,
        noise_multiplier=sigma,
        noise_to_signal=sigma * math.sqrt(model.trained) / terms.batch_size,
        steps=rounds * terms.steps_of(size),
        epsilon=curve[-1] if curve else math.inf,
        delta=terms.hiding.target_delta if charge else math.nan,
        bytes_up=per_round.up,
        bytes_down=per_round.down,
    )


def _row_of_all(
    terms: Terms,
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
        steps=terms.rounds,
        epsilon=curve[-1],
        delta=terms.hiding.target_delta,
        bytes_up=per_round.up,
        bytes_down=per_round.down,
    )
