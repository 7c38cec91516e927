"""Central: how a trusted server hides whole clients (``unit: client``), from public numbers.

What could not protect anybody is refused here, in words, before anything trains.
"""

from __future__ import annotations

import math
from dataclasses import replace

from silotune.algebra import seed_of
from silotune.config import Config
from silotune.engine import Server
from silotune.privacy import (
    AnyCharge,
    Central,
    ClientLevel,
    Correlated,
    Everyone,
    Gaussian,
    Poisson,
    Rotation,
)
from silotune.privacy.accounting import COARSE, calibrate, epsilon
from silotune.privacy.correlated import best_bands
from silotune.reports.record import RunFolder

from .mechanisms import budget, worst_case_rounds

MOST_EPSILON = 50.0
"""Beyond it a guarantee is empty: odds may change by a factor of exp(50)."""


def central_mechanism(config: Config, clients: int) -> Central:
    """Whom the server asks and how it forms their mean; a target epsilon is turned into z here.

    z is for the worst case: every round, and the reserve. Correlated noise has none.

    Args:
        config: as resolved.
        clients: how many there are; public.

    Raises:
        ValueError: if delta is too large for so few clients, the target cannot be reached, or
            the guarantee would be empty.
    """
    privacy = config.privacy
    if privacy.unit != "client":
        return Everyone()
    _check_unit(config, clients)
    fixed = _with_noise(config, clients, _noise_multiplier(config, clients))
    return replace(
        fixed, target_quantile=privacy.target_quantile if privacy.adaptive_clipping else None
    )


def server(config: Config, folder: RunFolder) -> Server | None:
    """What the server owns; None where it hides nobody."""
    if config.privacy.unit != "client":
        return None
    return Server(home=folder.server, budget=budget(config))


def _with_noise(config: Config, clients: int, sigma: float) -> ClientLevel:
    """The mechanism, but for adaptive clipping, which costs nothing and asks for a small sigma."""
    privacy, turns = config.privacy, config.privacy.client_turns
    seed = seed_of(config.train.seed, "insecure noise", "server")
    sampling: Poisson | Rotation = Poisson(privacy.client_sampling_rate)
    noise: Gaussian | Correlated = Gaussian(sigma)
    if privacy.noise == "correlated":
        bands = privacy.bands or best_bands(turns, worst_case_rounds(config))
        sampling, noise = Rotation(turns), Correlated(sigma, bands)
    return ClientLevel(
        clients=clients,
        sampling=sampling,
        noise=noise,
        max_update_norm=privacy.max_update_norm,
        insecure_seed=seed if privacy.insecure_seeded_noise else None,
    )


def _noise_multiplier(config: Config, clients: int) -> float:
    """As given, or the least that the target allows; refused if little is protected by it."""
    privacy = config.privacy
    sigma, target, delta = privacy.noise_multiplier, privacy.target_epsilon, privacy.target_delta
    rounds = worst_case_rounds(config)

    def price(sigma: float) -> AnyCharge:
        return replace(_with_noise(config, clients, sigma).charge(), steps=rounds)

    if sigma is None:
        assert target is not None
        _check_worth(target, "privacy.target_epsilon", "lower it")
        return calibrate(target, delta, price, relation=privacy.relation)
    cost = epsilon([price(sigma)], delta, relation=privacy.relation, grid=COARSE)
    _check_worth(cost, "privacy.noise_multiplier", "raise it, or take fewer train.num_rounds")
    return sigma


def _check_unit(config: Config, clients: int) -> None:
    delta = config.privacy.target_delta
    if not delta < 1 / clients:
        raise ValueError(
            f"privacy.target_delta: must be below 1 / number of clients = {1 / clients:.2g}, not "
            f"{delta:g}, or one client might be published whole; lower it. With few clients "
            "privacy.unit: example protects more for less noise"
        )
    if config.data.person is not None:
        raise ValueError(
            "data.person: silos' costs are composed for privacy.unit: example alone; leave it out. "
            "Somebody whose records are at several clients is protected less than a client"
        )


def _check_worth(cost: float, key: str, advice: str) -> None:
    if not cost <= MOST_EPSILON:
        said = "infinite" if math.isinf(cost) else f"{cost:.3g}"
        raise ValueError(
            f"{key}: epsilon would be {said}, and above {MOST_EPSILON:g} a guarantee is empty; "
            f"{advice}, or say privacy.unit: none"
        )
