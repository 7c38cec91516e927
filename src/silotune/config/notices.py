"""What a user should know about a configuration that is allowed."""

from __future__ import annotations

from collections.abc import Iterator

from silotune.objectives import find

from .schema import Config

FAR = 4
"""Times its usual rate from which a learning rate may end a run at chance."""


def notices(config: Config) -> Iterator[str]:
    """A rate far off, and what a private run makes public without epsilon covering it."""
    yield from _rate(config)
    if config.privacy.unit == "none":
        return
    sampled = [f for f in ("clients_per_round", "client_sampling_rate") if getattr(config.train, f)]
    for field in sampled:
        yield (
            f"train.{field}: anybody can draw from train.seed whom a round asks, so that "
            "no amplification by sampling of silos is claimed; a silo pays for rounds it trains in"
        )
    if config.data.labels is None and find(config.model.task).labelled:
        yield (
            "data.labels: not declared, so the set of labels is read from the records and "
            "becomes public; epsilon does not cover that"
        )
    here = not config.federation.sites  # which declare their own numbers
    if here and config.data.num_examples is None:
        yield (
            "data.num_examples: not declared, so each silo's number of records, rounded down, "
            "becomes public; epsilon does not cover that"
        )
    if config.method.given("experts"):
        yield (
            "method.experts: what the experts learned of records is in the model from the start; "
            "epsilon does not cover it. Each expert carries the epsilon of its own run, if any"
        )
    if config.method.given("init_from"):
        yield (
            "method.init_from: what the adapter learned of records is in the model from the start, "
            "and is assumed to come from public data or from records of others; if it is of a "
            "private run of ours, its charges count for life for silos of the same name"
        )
    if here and config.privacy.metric_noise is not None and config.data.num_held_out is None:
        yield (
            "data.num_held_out: not declared, so each silo's number of held-out records, rounded "
            "down, becomes public; epsilon does not cover that"
        )
    if config.evaluation == "simulation":
        yield (
            "evaluation: simulation shows metrics and splits of private records; epsilon does "
            "not cover them"
        )


def _rate(config: Config) -> Iterator[str]:
    rate, usual = config.train.learning_rate, config.usual_rate
    if isinstance(rate, float) and rate > FAR * usual:
        yield (
            f"train.learning_rate: {rate:g} is {rate / usual:.0f} times the usual {usual:g} of "
            f"{config.method.name} here, and may end at chance; null takes the usual one"
        )
