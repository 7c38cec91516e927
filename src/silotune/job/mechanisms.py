"""Mechanisms: how each silo draws, clips and noises, from public numbers alone."""

from __future__ import annotations

from collections.abc import Mapping
from math import floor, log10

from silotune.algebra import seed_of
from silotune.config import Config, check_batch_size, check_delta
from silotune.engine import Budget
from silotune.privacy import (
    Charge,
    Correlated,
    Discrete,
    ExampleLevel,
    Gaussian,
    NoPrivacy,
    Poisson,
    Privacy,
    Rotation,
    TruncatedPoisson,
)
from silotune.privacy.accounting import calibrate, epsilon
from silotune.privacy.correlated import best_bands
from silotune.privacy.noise import Noise
from silotune.privacy.releases import NoisyCount, Releases
from silotune.privacy.sampling import Sampling


def declared_sizes(config: Config, records: Mapping[str, int]) -> tuple[dict[str, int], list[str]]:
    """The public number of records of each silo, and notices.

    A silo that declares nothing has its size rounded down to two digits, once; without privacy
    the size itself is used.

    Args:
        config: may declare one number, or one for each silo.
        records: real training sizes; they go no further than this function.

    Raises:
        ValueError: if a silo is declared that does not exist, or one that exists is not.
    """
    declared = config.data.num_examples
    if declared is None and config.privacy.unit == "none":
        return dict(records), []
    return _declared("data.num_examples", declared, records)


def declared_held_out(
    config: Config, records: Mapping[str, int]
) -> tuple[dict[str, int], list[str]]:
    """The same of held-out records; nothing unless noisy scores are divided by them.

    Raises:
        ValueError: as ``declared_sizes``.
    """
    if config.privacy.metric_noise is None:
        return {}, []
    return _declared("data.num_held_out", config.data.num_held_out, records)


def _declared(
    key: str, declared: int | Mapping[str, int] | None, records: Mapping[str, int]
) -> tuple[dict[str, int], list[str]]:
    if declared is None:
        sizes = {name: _two_digits(n) for name, n in records.items()}
        listed = ", ".join(f"{name}: {n}" for name, n in sizes.items())
        return sizes, [f"{key}: declared as public, rounded down from the data once: {listed}"]
    if isinstance(declared, int):
        return dict.fromkeys(records, declared), []
    if differ := declared.keys() ^ records.keys():
        raise ValueError(
            f"{key}: names {', '.join(sorted(differ))} differently from the data, whose silos are "
            f"{', '.join(records)}"
        )
    return dict(declared), []


def mechanisms(config: Config, sizes: Mapping[str, int]) -> dict[str, Privacy]:
    """One mechanism a silo; a target epsilon is turned into sigma here, before anything trains.

    Sigma is for the worst case: every round, and the reserve, with full participation. Under
    client-level privacy silos train as they are, and the server hides them (``central``).

    Raises:
        ValueError: if delta or the batch does not fit a declared size, or the target cannot be
            reached.
    """
    check_batch_size(config.train.batch_size, sizes)
    if config.privacy.unit != "example":
        return {name: NoPrivacy(batch_size=config.train.batch_size) for name in sizes}
    check_delta(config.privacy.target_delta, sizes)
    _check_metric(config)
    return {name: _mechanism(config, name, size) for name, size in sizes.items()}


def releases(config: Config, name: str, held_out: int) -> Releases:
    """What a silo sends besides its update.

    Args:
        config: as resolved.
        name: of the silo.
        held_out: its declared number of held-out records.
    """
    privacy = config.privacy
    seed = seed_of(config.train.seed, "insecure noise", name, "releases")

    def noisy(sigma: float | None) -> NoisyCount | None:
        if sigma is None:
            return None
        insecure = seed if privacy.insecure_seeded_noise else None
        return NoisyCount(multiplier=sigma, insecure_seed=insecure)

    return Releases(
        count=noisy(privacy.count_noise), metric=noisy(privacy.metric_noise), held_out=held_out
    )


def beside_training(config: Config) -> tuple[Charge, ...]:
    """What training records pay once for the number of them."""
    count = releases(config, "", 0).count
    return (count.charge(),) if count else ()


def scored(config: Config, finished_rounds: int) -> bool:
    """Whether the state after so many rounds is scored."""
    train = config.train
    return finished_rounds % train.eval_every == 0 or finished_rounds == train.num_rounds


def worst_case_rounds(config: Config) -> int:
    """Every round, and the reserve.

    Correlated noise has no reserve: its rounds are one release and cannot be trained again.
    """
    reserve = 0 if config.privacy.noise == "correlated" else config.privacy.reserve_rounds
    return config.train.num_rounds + reserve


def worst_case_steps(config: Config) -> int:
    """Local steps of a silo that takes part in every round and uses up the reserve."""
    return worst_case_rounds(config) * config.train.local_steps


def budget(config: Config) -> Budget | None:
    """What every silo enforces; None if the noise was given instead of an epsilon."""
    target = config.privacy.target_epsilon
    if target is None:
        return None
    return Budget(
        epsilon=target, delta=config.privacy.target_delta, relation=config.privacy.relation
    )


def _mechanism(config: Config, name: str, size: int) -> ExampleLevel:
    steps = worst_case_steps(config)
    sigma = config.privacy.noise_multiplier
    if sigma is None:
        target, delta = config.privacy.target_epsilon, config.privacy.target_delta
        assert target is not None
        sigma = calibrate(
            target,
            delta,
            lambda sigma: _with_noise(config, name, size, sigma).charge(steps),
            relation=config.privacy.relation,
            besides=beside_training(config),
        )
    return _with_noise(config, name, size, sigma)


def _check_metric(config: Config) -> None:
    """The held-out records have the same budget as the others, and pay for scores alone."""
    metric, limit = releases(config, "", 0).metric, budget(config)
    if metric is None or limit is None:
        return
    rounds = sum(scored(config, n) for n in range(1, config.train.num_rounds + 1))
    cost = epsilon([metric.charge()] * rounds, limit.delta, relation=limit.relation)
    if cost > limit.epsilon:
        raise ValueError(
            f"privacy.metric_noise: {rounds} scores would cost the held-out records epsilon "
            f"{cost:.3g}, more than privacy.target_epsilon; raise it, or train.eval_every"
        )


def _with_noise(config: Config, name: str, size: int, sigma: float) -> ExampleLevel:
    privacy, batch_size = config.privacy, float(config.train.batch_size)
    sampling = _sampling(config, size)
    insecure = seed_of(config.train.seed, "insecure noise", name)
    return ExampleLevel(
        sampling=sampling,
        noise=_noise(config, sampling, sigma),
        max_grad_norm=privacy.max_grad_norm,
        expected_batch_size=size / sampling.turns if isinstance(sampling, Rotation) else batch_size,
        insecure_seed=insecure if privacy.insecure_seeded_noise else None,
    )


def _sampling(config: Config, size: int) -> Sampling:
    privacy, batch_size = config.privacy, config.train.batch_size
    match privacy.sampling:
        case "poisson":
            return Poisson(batch_size / size)
        case "truncated-poisson":
            largest = privacy.max_batch_size or 4 * batch_size
            return TruncatedPoisson(batch_size / size, largest, size)
        case "rotation":
            return Rotation(size // batch_size)


def _noise(config: Config, sampling: Sampling, sigma: float) -> Noise:
    match config.privacy.noise:
        case "gaussian":
            return Gaussian(sigma)
        case "discrete":
            return Discrete(sigma)
        case "correlated":
            assert isinstance(sampling, Rotation)
            steps = worst_case_steps(config)
            return Correlated(sigma, config.privacy.bands or best_bands(sampling.turns, steps))


def _two_digits(n: int) -> int:
    step = int(10 ** max(0, floor(log10(n)) - 1))
    return n // step * step
