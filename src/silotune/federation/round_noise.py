"""How much of what a round changed is noise, and what is left of it to be seen as signal.

The change is released and the noise's deviation follows from public numbers, so this is
post-processing: it reads no record and costs no privacy. The deviation is known exactly where the
change is linear in independent noise and the rule is the plain mean. There are two such cases.

- Record level, plain SGD. With f_k = w_k / sum w over the clients that took part, s_k the deviation
  of client k's noised sum, b_k its batch size and eta the round's learning rate, a number that
  trains in T of the local steps gets the variance ``T eta^2 sum_k (f_k s_k / b_k)^2``. What the
  noise of one step does to the gradients of later ones is not in it: it counts as signal.
- Client level, whatever clients do: each shared number gets ``(z S)^2 / (q N)^2``.

Momentum, weight decay and other optimisers, other rules, folded pairs, weights that clients release
and correlated noise, of which later rounds take much back, are left out: nothing is told of them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from silotune.core import ClientId, GlobalState, Key, Role, RoundPlan
from silotune.engine import Experiment
from silotune.optim import SGD
from silotune.privacy import ClientLevel, ClientMechanism, Discrete, ExampleLevel, Gaussian

SURE = 2.0
"""Standard deviations of the noise's square by which a change must exceed it to show a signal."""


@dataclass(frozen=True)
class RoundNoise:
    """The noise in the change of the server's tensors.

    Attributes:
        square: what its squared L2 norm is expected to be.
        spread: standard deviation of that square.
    """

    square: float
    spread: float

    def to_signal(self, change: float) -> float:
        """Noise over signal, where the signal is ``sqrt(change^2 - square)``.

        The change has the noise in it, and the two are orthogonal but for chance. Infinite where
        noise alone might well look like the change: within two spreads, or where less than the
        noise is left.

        Args:
            change: L2 norm of what was released.
        """
        signal = change**2 - self.square
        return math.sqrt(self.square / signal) if signal > SURE * self.spread else math.inf


def round_noise(
    experiment: Experiment,
    mechanisms: Mapping[str, ClientMechanism],
    before: GlobalState,
    clients: Iterable[ClientId],
) -> RoundNoise | None:
    """Of one round; None without noise, or where it is not known.

    Args:
        experiment: what decides the run.
        mechanisms: each client's.
        before: the state at the start of the round.
        clients: who is in the mean; not looked at where clients are hidden. Where there is nobody
            nothing moves.
    """
    plan = experiment.plan(before.round)
    if plan.fold or not experiment.axes.aggregator.replaceable:
        return None
    shared = plan.shared(before.factors)
    if experiment.central.private:
        numbers = sum(t.numel() for t in shared.values())
        variances = dict.fromkeys(shared, _central_variance(experiment, before, numbers))
    else:
        variances = _local_variances(experiment, mechanisms, before, clients)
    told = [(t.numel(), variances.get(k, 0.0)) for k, t in shared.items()]
    square = sum(n * v for n, v in told)
    if not 0.0 < square < math.inf:  # NaN is what nobody knows
        return None
    return RoundNoise(square, math.sqrt(sum(2 * n * v**2 for n, v in told)))


def _central_variance(experiment: Experiment, before: GlobalState, numbers: int) -> float:
    """Of each number of the mean; NaN if it is not known."""
    match experiment.central:
        case ClientLevel(noise=Gaussian()) as server:
            noise = Gaussian(server.update_noise)
            bound = server.clipping_norm(before.memory)
            return (noise.deviation(bound, numbers) / server.expected_cohort) ** 2
    return math.nan


def _local_variances(
    experiment: Experiment,
    mechanisms: Mapping[str, ClientMechanism],
    before: GlobalState,
    clients: Iterable[ClientId],
) -> dict[Key, float]:
    """Of each number of a tensor that trains, in the mean; NaN if it is not known."""
    weights = {client: experiment.weights[client] or math.nan for client in clients}
    if not weights:
        return {}
    whole = sum(weights.values())
    reaches = {client: experiment.reach_of(client, before.round) for client in weights}
    tau = sum(weight * reaches[client] for client, weight in weights.items()) / whole
    plan, variances = experiment.plan(before.round), dict[Key, float]()
    for steps in set(map(experiment.steps_of, weights)):
        alike = [client for client in weights if experiment.steps_of(client) == steps]
        for roles, square in _squares(experiment, plan, before.round, steps).items():
            active = before.factors.only(roles).without(plan.fixed)
            numbers = sum(t.numel() for t in active.values())
            parts = [
                weights[client]
                / whole
                * tau
                / reaches[client]
                * _step_deviation(mechanisms[client], numbers)
                for client in alike
            ]
            added = square * math.hypot(*parts) ** 2
            variances |= {key: variances.get(key, 0.0) + added for key in active}
    return variances


def _squares(
    experiment: Experiment, plan: RoundPlan, round: int, steps: int
) -> Mapping[frozenset[Role], float]:
    """Sums of the squares by which noise in a step's gradient moves what that step trains."""
    squares = defaultdict[frozenset[Role], float](float)
    rates = _linear_rates(experiment, round, steps)
    for roles, rate in zip(plan.by_step(steps), rates, strict=True):
        squares[roles] += rate**2
    return squares


def _linear_rates(experiment: Experiment, round: int, steps: int) -> Sequence[float]:
    """By what noise in each step's gradient moves a tensor; NaN where that is not a constant."""
    match experiment.axes.optimizer:
        case SGD(momentum=0.0, weight_decay=0.0):
            return experiment.learning_rates(round, steps)
    return [math.nan] * steps


def _step_deviation(mechanism: ClientMechanism, numbers: int) -> float:
    """Of the noise in each of so many numbers of a step's gradient; NaN if it is not known."""
    match mechanism:
        case ExampleLevel(noise=Gaussian() | Discrete() as noise):
            deviation = noise.deviation(mechanism.max_grad_norm, numbers)
            return deviation / mechanism.expected_batch_size
    return math.nan
