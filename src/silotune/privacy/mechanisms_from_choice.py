"""From a choice and public numbers to mechanisms with the noise that they need.

A target epsilon is turned into sigma here, before anything trains, for the worst case: every round
and the reserve, with full participation. What could not protect anybody is refused, in words.
Sizes are the *declared* numbers of records: public, and never read from the data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from silotune.core import seed_of, steps_in

from .accounting.accountant import COARSE, epsilon
from .accounting.calibration import calibrate
from .accounting.charges import AnyCharge, Charge
from .accounting.sampled import Target, certified
from .choice import ClientDP, ExampleDP, PrivacyBudget, PrivacyChoice
from .ledger.noisy_counts import NoisyCount, Releases
from .mechanisms.base import ClientMechanism
from .mechanisms.dp_fedavg import ClientLevel
from .mechanisms.dp_sgd import ExampleLevel
from .mechanisms.matrix_factorization import best_bands
from .mechanisms.no_privacy import NoPrivacy
from .mechanisms.noise import Correlated, Discrete, Gaussian, Noise
from .mechanisms.sampling import Poisson, Rotation, Sampling, TruncatedPoisson
from .mechanisms.server import FullParticipation, ServerMechanism
from .size_checks import check_batch_size, check_delta, check_max_batch_size

MOST_EPSILON = 50.0
"""Beyond it the guarantee of a hidden client is empty: odds may change by a factor of exp(50)."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """What is public of a run, and decides its price.

    Attributes:
        rounds: of the whole run.
        local_steps: of each client in one round; None = the usual, if there are no epochs.
        local_epochs: of each client in one round, over its declared number of records.
        batch_size: records that a step expects.
        scores: how many states are scored on held-out records.
        seed: of the experiment; noise comes from it only where that is asked for.
    """

    rounds: int
    batch_size: int
    local_steps: int | None = None
    local_epochs: float | None = None
    scores: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rounds", "local_steps", "batch_size"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"{name}: must be at least 1, not {number}")

    def steps_of(self, size: int) -> int:
        """Local steps in one round of a client that declares so many records."""
        return steps_in(
            size,
            batch_size=self.batch_size,
            local_steps=self.local_steps,
            local_epochs=self.local_epochs,
        )


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
    choice: PrivacyChoice, sizes: Mapping[str, int], training: Training
) -> dict[str, ClientMechanism]:
    """One mechanism a client. Where the server hides them, they train as they are.

    Raises:
        ValueError: as ``calibrated``.
    """
    check_batch_size(training.batch_size, sizes)
    if not isinstance(choice, ExampleDP):
        return {name: NoPrivacy(batch_size=training.batch_size) for name in sizes}
    check_delta(choice.target_delta, sizes)
    check_max_batch_size(choice.max_batch_size, training.batch_size)
    _check_metric(choice, training)
    sigmas = {size: _sigma(choice, size, training) for size in set(sizes.values())}
    return {name: _with(choice, name, n, sigmas[n], training) for name, n in sizes.items()}


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


def releases(choice: PrivacyChoice, client: str, held_out: int, seed: int = 0) -> Releases:
    """What a client sends besides its update.

    Args:
        choice: says which, and with how much noise.
        client: its name.
        held_out: its declared number of held-out records.
        seed: see ``Training``.
    """
    if not isinstance(choice, ExampleDP):
        return Releases(held_out=held_out)
    insecure = seed_of(seed, "insecure noise", client, "releases")

    def noisy(sigma: float | None) -> NoisyCount | None:
        if sigma is None:
            return None
        return NoisyCount(
            multiplier=sigma, insecure_seed=insecure if choice.insecure_seeded_noise else None
        )

    return Releases(
        count=noisy(choice.count_noise), metric=noisy(choice.metric_noise), held_out=held_out
    )


def client_budget(choice: PrivacyChoice, size: int, training: Training) -> PrivacyBudget | None:
    """What a client enforces, which knows that the whole of its run fits; None without a target.

    Args:
        choice: who is hidden, and at what price.
        size: its declared number of records.
        training: what is public of the run.

    Raises:
        ValueError: if the target cannot be reached.
    """
    if choice.budget is None or not isinstance(choice, ExampleDP):
        return choice.budget
    return choice.budget.covering([_worst(choice, size, training), *beside_training(choice)])


def server_budget(
    choice: PrivacyChoice, server: ServerMechanism, training: Training
) -> PrivacyBudget | None:
    """The same of a server that hides its clients."""
    charge = server.charge()
    if choice.budget is None or charge is None:
        return choice.budget
    rounds = worst_case_rounds(choice, training.rounds)
    return choice.budget.covering([replace(charge, steps=rounds)])


def beside_training(choice: PrivacyChoice) -> tuple[Charge, ...]:
    """What training records pay once for the number of them."""
    count = releases(choice, "", 0).count
    return (count.charge(),) if count else ()


def worst_case_rounds(choice: PrivacyChoice, rounds: int) -> int:
    """Every round, and the reserve.

    Correlated noise has no reserve: its rounds are one release and cannot be trained again.
    """
    if not isinstance(choice, ExampleDP | ClientDP) or choice.noise == "correlated":
        return rounds
    return rounds + choice.reserve_rounds


def worst_case_steps(choice: PrivacyChoice, training: Training, size: int) -> int:
    """Local steps of a client that takes part in every round and uses up the reserve.

    Args:
        choice: says how many rounds may be trained again.
        training: says how many there are.
        size: the number of records that the client declares.
    """
    return worst_case_rounds(choice, training.rounds) * training.steps_of(size)


def _sigma(choice: ExampleDP, size: int, training: Training) -> float:
    """As given, or the least that the target allows."""
    if choice.noise_multiplier is not None:
        return choice.noise_multiplier
    return _worst(choice, size, training).noise_multiplier


@lru_cache(maxsize=2**14)
def _worst(choice: ExampleDP, size: int, training: Training) -> AnyCharge:
    """A charge that keeps to the target, and costs no less than what a client is charged."""
    assert choice.target_epsilon is not None, "refused when it was chosen"
    steps = worst_case_steps(choice, training, size)

    def price(sigma: float) -> AnyCharge:
        return _with(choice, "", size, sigma, training).charge(steps)

    planned, besides = price(1.0), beside_training(choice)
    if not isinstance(planned, Charge):
        sigma = calibrate(
            choice.target_epsilon,
            choice.target_delta,
            price,
            relation=choice.relation,
            besides=besides,
        )
        return price(sigma)
    target = Target(
        choice.target_epsilon,
        choice.target_delta,
        choice.relation,
        steps,
        planned.grid_points,
        besides,
    )
    return certified(target, planned.sampling_rate)


def _with(
    choice: ExampleDP, name: str, size: int, sigma: float, training: Training
) -> ExampleLevel:
    sampling = _sampling(choice, size, training.batch_size)
    batch_size = float(training.batch_size)
    insecure = seed_of(training.seed, "insecure noise", name)
    return ExampleLevel(
        sampling=sampling,
        noise=_noise(choice, sampling, sigma, worst_case_steps(choice, training, size)),
        max_grad_norm=choice.max_grad_norm,
        expected_batch_size=size / sampling.turns if isinstance(sampling, Rotation) else batch_size,
        insecure_seed=insecure if choice.insecure_seeded_noise else None,
    )


def _sampling(choice: ExampleDP, size: int, batch_size: int) -> Sampling:
    match choice.sampling:
        case "poisson":
            return Poisson(batch_size / size)
        case "truncated-poisson":
            largest = choice.max_batch_size or 4 * batch_size
            return TruncatedPoisson(batch_size / size, largest, size)
        case "rotation":
            return Rotation(size // batch_size)


def _noise(choice: ExampleDP, sampling: Sampling, sigma: float, steps: int) -> Noise:
    match choice.noise:
        case "gaussian":
            return Gaussian(sigma)
        case "discrete":
            return Discrete(sigma)
        case "correlated":
            assert isinstance(sampling, Rotation)
            return Correlated(sigma, choice.bands or best_bands(sampling.turns, steps))


def _check_metric(choice: ExampleDP, training: Training) -> None:
    """The held-out records have the same budget as the others, and pay for scores alone."""
    metric, limit = releases(choice, "", 0).metric, choice.budget
    if metric is None or limit is None:
        return
    charges = [metric.charge()] * training.scores
    cost = epsilon(charges, limit.delta, relation=limit.relation)
    if cost > limit.epsilon:
        raise ValueError(
            f"metric_noise: {training.scores} scores would cost the held-out records epsilon "
            f"{cost:.3g}, more than target_epsilon; raise it, or score less often (eval_every)"
        )


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
