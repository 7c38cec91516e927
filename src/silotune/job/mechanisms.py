"""Mechanisms: how each silo draws, clips and noises, from public numbers alone."""

from __future__ import annotations

from collections.abc import Mapping
from math import floor, log10

from silotune.config import Config, check_batch_size, check_delta
from silotune.engine import Budget
from silotune.privacy import ExampleLevel, NoPrivacy, Privacy
from silotune.privacy.accounting import calibrate


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
    if declared is None:
        if config.privacy.unit == "none":
            return dict(records), []
        sizes = {name: _two_digits(n) for name, n in records.items()}
        listed = ", ".join(f"{name}: {n}" for name, n in sizes.items())
        return sizes, [
            f"data.num_examples: declared as public, rounded down from the data once: {listed}"
        ]
    if isinstance(declared, int):
        return dict.fromkeys(records, declared), []
    if differ := declared.keys() ^ records.keys():
        raise ValueError(
            f"data.num_examples: names {', '.join(sorted(differ))} differently from the data, "
            f"whose silos are {', '.join(records)}"
        )
    return dict(declared), []


def mechanisms(config: Config, sizes: Mapping[str, int]) -> dict[str, Privacy]:
    """One mechanism a silo; a target epsilon is turned into sigma here, before anything trains.

    Sigma is for the worst case: every round, and the reserve, with full participation.

    Raises:
        ValueError: if delta or the batch does not fit a declared size, or the target cannot be
            reached.
    """
    check_batch_size(config.train.batch_size, sizes)
    if config.privacy.unit == "none":
        return {name: NoPrivacy(batch_size=config.train.batch_size) for name in sizes}
    check_delta(config.privacy.target_delta, sizes)
    return {name: _mechanism(config, size) for name, size in sizes.items()}


def worst_case_steps(config: Config) -> int:
    """Local steps of a silo that takes part in every round and uses up the reserve."""
    rounds = config.train.num_rounds + config.privacy.reserve_rounds
    return rounds * config.train.local_steps


def budget(config: Config) -> Budget | None:
    """What every silo enforces; None if the noise was given instead of an epsilon."""
    epsilon = config.privacy.target_epsilon
    return None if epsilon is None else Budget(epsilon=epsilon, delta=config.privacy.target_delta)


def _mechanism(config: Config, size: int) -> ExampleLevel:
    privacy, batch_size = config.privacy, config.train.batch_size
    rate = batch_size / size
    sigma = privacy.noise_multiplier
    if sigma is None:
        assert privacy.target_epsilon is not None
        steps = worst_case_steps(config)
        sigma = calibrate(privacy.target_epsilon, privacy.target_delta, rate, steps)
    return ExampleLevel(
        sampling_rate=rate,
        noise_multiplier=sigma,
        max_grad_norm=privacy.max_grad_norm,
        expected_batch_size=float(batch_size),
    )


def _two_digits(n: int) -> int:
    step = int(10 ** max(0, floor(log10(n)) - 1))
    return n // step * step
