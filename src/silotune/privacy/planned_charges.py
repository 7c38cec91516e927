"""What a run costs a client at worst, and the noise that keeps it within its target.

Sizes are the *declared* numbers of records: public, and never read from the data. The worst case is
every round and the reserve, with full participation. Of clients that hide single records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial

from silotune.core import seed_of, steps_in

from .accounting.accountant import epsilon
from .accounting.calibration import calibrate
from .accounting.charges import AnyCharge, Charge
from .accounting.dominance import dominated
from .accounting.sampled import Target, certified
from .choice import ClientDP, ExampleDP, PrivacyBudget, PrivacyChoice
from .ledger.noisy_counts import NoisyCount, Releases
from .mechanisms.dp_sgd import ExampleLevel
from .mechanisms.matrix_factorization import best_bands
from .mechanisms.noise import Correlated, Discrete, Gaussian, Noise
from .mechanisms.sampling import Poisson, Rotation, Sampling, TruncatedPoisson
from .size_checks import check_batch_size, check_delta, check_max_batch_size


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


PlannedCharges = Mapping[int, AnyCharge]
"""Declared number of records -> a charge that keeps to the target, and costs no less than the whole
run of a client that declares so many. Empty where no target is set, or nothing is hidden by it."""


def planned_charges(
    choice: PrivacyChoice, sizes: Mapping[str, int], training: Training
) -> PlannedCharges:
    """Calibrate for every size.

    Args:
        choice: who is hidden, and at what price.
        sizes: each client's declared number of records.
        training: what is public of the run.

    Raises:
        ValueError: as ``calibrated``.
    """
    check_sizes(choice, sizes, training)
    if not isinstance(choice, ExampleDP) or choice.noise_multiplier is not None:
        return {}
    return {size: _worst(choice, size, training) for size in sorted(set(sizes.values()))}


def check_planned(
    choice: PrivacyChoice, sizes: Mapping[str, int], training: Training, planned: PlannedCharges
) -> None:
    """See that charges which another process has certified are of this very run.

    Raises:
        ValueError: if one is missing, or a client's whole run would cost more than it.
    """
    if not isinstance(choice, ExampleDP) or choice.noise_multiplier is not None:
        return
    for size in set(sizes.values()):
        charge = planned.get(size)
        if charge is None or not dominated(
            [_price(choice, size, charge.noise_multiplier, training)], [charge]
        ):
            raise ValueError(
                f"noise: what was handed over for {size:,} declared records is not of this run; "
                "begin with one version of silotune everywhere"
            )


def client_budget(choice: PrivacyChoice, planned: AnyCharge | None) -> PrivacyBudget | None:
    """What a client enforces, which knows that the whole of its run fits; None without a target.

    Args:
        choice: who is hidden, and at what price.
        planned: of the client's declared size (``planned_charges``); None if there is none.
    """
    if choice.budget is None or planned is None:
        return choice.budget
    return choice.budget.covering([planned, *beside_training(choice)])


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


def check_sizes(choice: PrivacyChoice, sizes: Mapping[str, int], training: Training) -> None:
    """Refuse what no noise makes right for these sizes.

    Args:
        choice: who is hidden, and at what price.
        sizes: each client's declared number of records.
        training: what is public of the run.

    Raises:
        ValueError: naming the field, if delta or the batch does not fit a size, or scores alone
            cost more than the target.
    """
    check_batch_size(training.batch_size, sizes)
    if isinstance(choice, ExampleDP):
        check_delta(choice.target_delta, sizes)
        check_max_batch_size(choice.max_batch_size, training.batch_size)
        _check_metric(choice, training)


@lru_cache(maxsize=2**14)
def _worst(choice: ExampleDP, size: int, training: Training) -> AnyCharge:
    """A charge that keeps to the target, and costs no less than what a client is charged."""
    assert choice.target_epsilon is not None, "refused when it was chosen"
    price = partial(_price, choice, size, training=training)
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
        planned.steps,
        planned.grid_points,
        besides,
    )
    return certified(target, planned.sampling_rate)


def _price(choice: ExampleDP, size: int, sigma: float, training: Training) -> AnyCharge:
    """Of a whole run of a client that declares so many records, at this noise."""
    steps = worst_case_steps(choice, training, size)
    return example_level(choice, "", size, sigma, training).charge(steps)


def example_level(
    choice: ExampleDP, name: str, size: int, sigma: float, training: Training
) -> ExampleLevel:
    """The mechanism of a client.

    Args:
        choice: with how much clipping, which coins and which noise.
        name: the client's.
        size: its declared number of records.
        sigma: of the noise, in clip norms.
        training: what is public of the run.
    """
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
