"""From a choice and public numbers to mechanisms with the noise that they need.

A target epsilon is turned into sigma here, before anything trains, for the worst case: every round
and the reserve, with full participation. What could not protect anybody is refused, in words.
Sizes are the *declared* numbers of records: public, and never read from the data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from silotune.core import seed_of

from .accounting.accountant import COARSE, epsilon
from .accounting.calibration import calibrate
from .accounting.charges import AnyCharge
from .choice import ClientDP, ExampleDP, PrivacyBudget, PrivacyChoice
from .mechanisms.base import ClientMechanism
from .mechanisms.dp_fedavg import ClientLevel
from .mechanisms.matrix_factorization import best_bands
from .mechanisms.no_privacy import NoPrivacy
from .mechanisms.noise import Correlated, Gaussian
from .mechanisms.sampling import Poisson, Rotation
from .mechanisms.server import FullParticipation, ServerMechanism
from .planned_charges import (
    PlannedCharges,
    Training,
    check_sizes,
    example_level,
    planned_charges,
    worst_case_rounds,
)

MOST_EPSILON = 50.0
"""Beyond it the guarantee of a hidden client is empty: odds may change by a factor of exp(50)."""


@dataclass(frozen=True, kw_only=True)
class Mechanisms:
    """What a choice comes to.

    Attributes:
        clients: each client's mechanism.
        server: whom the server asks and how it forms their mean.
        budget: what is enforced; None if no epsilon was set.
    """

    clients: Mapping[str, ClientMechanism]
    server: ServerMechanism
    budget: PrivacyBudget | None


def calibrated(
    choice: PrivacyChoice,
    *,
    sizes: Mapping[str, int],
    batch_size: int,
    rounds: int,
    local_steps: int,
    scores: int = 0,
    seed: int = 0,
) -> Mechanisms:
    """The mechanisms of all clients and of the server.

    Args:
        choice: who is hidden, and at what price.
        sizes: each client's declared number of records.
        batch_size: records that a step expects.
        rounds: of the whole run.
        local_steps: of each client in one round.
        scores: how many states are scored on held-out records.
        seed: see ``Training``.

    Raises:
        ValueError: naming the field, if delta or the batch does not fit a declared size, the target
            cannot be reached, or the guarantee would be empty.
    """
    training = Training(
        rounds=rounds, local_steps=local_steps, batch_size=batch_size, scores=scores, seed=seed
    )
    return Mechanisms(
        clients=client_mechanisms(choice, sizes, training),
        server=server_mechanism(choice, len(sizes), training),
        budget=choice.budget,
    )


def client_mechanisms(
    choice: PrivacyChoice,
    sizes: Mapping[str, int],
    training: Training,
    planned: PlannedCharges | None = None,
) -> dict[str, ClientMechanism]:
    """One mechanism a client. Where the server hides them, they train as they are.

    Args:
        choice: who is hidden, and at what price.
        sizes: each client's declared number of records.
        training: what is public of the run.
        planned: what was calibrated for these sizes; None = it is calibrated here.

    Raises:
        ValueError: as ``calibrated``.
    """
    check_sizes(choice, sizes, training)
    if not isinstance(choice, ExampleDP):
        return {name: NoPrivacy(batch_size=training.batch_size) for name in sizes}
    planned = planned_charges(choice, sizes, training) if planned is None else planned

    def sigma(size: int) -> float:
        if choice.noise_multiplier is not None:
            return choice.noise_multiplier
        return planned[size].noise_multiplier

    return {name: example_level(choice, name, n, sigma(n), training) for name, n in sizes.items()}


def server_mechanism(choice: PrivacyChoice, clients: int, training: Training) -> ServerMechanism:
    """Whom the server asks and how it forms their mean; with noise if it hides them.

    Args:
        choice: who is hidden, and at what price.
        clients: how many there are; public.
        training: gives the number of rounds.

    Raises:
        ValueError: if delta is too large for so few clients, the target cannot be reached, or
            the guarantee would be empty.
    """
    if not isinstance(choice, ClientDP):
        return FullParticipation()
    if not choice.target_delta < 1 / clients:
        raise ValueError(
            f"target_delta: must be below 1 / number of clients = {1 / clients:.2g}, not "
            f"{choice.target_delta:g}, or one client might be published whole; lower it. With few "
            "clients, hiding records (unit: example) protects more for less noise"
        )
    sigma = _server_noise(choice, clients, training)
    fixed = _server_with(choice, clients, sigma, training)
    quantile = choice.target_quantile if choice.adaptive_clipping else None
    return replace(fixed, target_quantile=quantile)


def server_budget(
    choice: PrivacyChoice, server: ServerMechanism, training: Training
) -> PrivacyBudget | None:
    """The same of a server that hides its clients."""
    charge = server.charge()
    if choice.budget is None or charge is None:
        return choice.budget
    rounds = worst_case_rounds(choice, training.rounds)
    return choice.budget.covering([replace(charge, steps=rounds)])


def _server_with(choice: ClientDP, clients: int, sigma: float, training: Training) -> ClientLevel:
    """The mechanism, but for adaptive clipping, which costs nothing and asks for a small sigma."""
    seed = seed_of(training.seed, "insecure noise", "server")
    sampling: Poisson | Rotation = Poisson(choice.client_sampling_rate)
    noise: Gaussian | Correlated = Gaussian(sigma)
    if choice.noise == "correlated":
        rounds = worst_case_rounds(choice, training.rounds)
        bands = choice.bands or best_bands(choice.turns, rounds)
        sampling, noise = Rotation(choice.turns), Correlated(sigma, bands)
    return ClientLevel(
        clients=clients,
        sampling=sampling,
        noise=noise,
        max_update_norm=choice.max_update_norm,
        insecure_seed=seed if choice.insecure_seeded_noise else None,
    )


def _server_noise(choice: ClientDP, clients: int, training: Training) -> float:
    """As given, or the least that the target allows; refused if little is protected by it."""
    sigma, target, delta = choice.noise_multiplier, choice.target_epsilon, choice.target_delta
    rounds = worst_case_rounds(choice, training.rounds)

    def price(sigma: float) -> AnyCharge:
        return replace(_server_with(choice, clients, sigma, training).charge(), steps=rounds)

    if sigma is None:
        assert target is not None, "refused when it was chosen"
        _check_worth(target, "target_epsilon", "lower it")
        return calibrate(target, delta, price, relation=choice.relation)
    cost = epsilon([price(sigma)], delta, relation=choice.relation, grid=COARSE)
    _check_worth(cost, "noise_multiplier", "raise it, or take fewer rounds")
    return sigma


def _check_worth(cost: float, field: str, advice: str) -> None:
    if not cost <= MOST_EPSILON:
        found = "infinite" if math.isinf(cost) else f"{cost:.3g}"
        raise ValueError(
            f"{field}: epsilon would be {found}, and above {MOST_EPSILON:g} a guarantee is empty; "
            f"{advice}, or choose no privacy"
        )
