"""``plan``: what a run will cost, as tables and in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from silotune.config import Config, build
from silotune.core import work_text
from silotune.core.units import count_text, human_bytes, number_text
from silotune.federation.noise_words import verdict
from silotune.federation.plan import Plan, forecast, shown_epsilon
from silotune.reports.tables import epsilon_table, plan_table

from .config_source import chosen, warnings
from .console import busy, emit, say, speaker
from .couriers import check_kit

RECORD_NOISE = (
    "noise / signal: length of one step's noise (σ C √P / b for P trained numbers) over the "
    "longest that the mean of clipped gradients can be (C, when all records agree). Larger "
    "batches lower it; so do fewer trained numbers, and a larger ε"
)

CLIENT_NOISE = (
    "noise / signal: length of one round's noise (σ S √P / n for P trained numbers and n clients "
    "expected in a round) over the longest that the mean of clipped changes can be (S, when all "
    "clients agree). More clients lower it; so do fewer trained numbers, and a larger ε"
)

CORRELATED_NOISE = (
    "noise: correlated: that is the independent noise behind it, a part of which cancels in the "
    "sum over the run"
)


def foretell(name: str, overrides: Sequence[str], *, as_json: bool) -> None:
    """Show a forecast."""
    console, config = speaker(as_json=as_json), chosen(name, overrides)
    check_kit(config)
    with busy(console, "opening the model and computing the noise"):
        plan = forecast(build(config))
    say(console, _what(config, plan))
    console.print(plan_table(plan.silos, config.privacy.unit))
    if plan.epsilon:
        shown, left_out = shown_epsilon(plan.epsilon)
        console.print(epsilon_table(shown))
        for line in left_out:
            say(console, line)
    for line in _words(config, plan):
        say(console, line)
    if as_json:
        emit(asdict(plan))


def _what(config: Config, plan: Plan) -> str:
    share = 100 * plan.trained / plan.total
    return (
        f"{config.method.title} on {config.model.name_or_path}: {plan.trained:,} of {plan.total:,} "
        f"numbers ({share:.2g} %) are trained and sent; {count_text(plan.rounds, 'round')} of "
        f"{work_text(plan.local_steps, plan.local_epochs)} ({plan.optimizer})"
    )


def _words(config: Config, plan: Plan) -> Iterator[str]:
    yield (
        f"bytes: {human_bytes(plan.bytes_up)} up and {human_bytes(plan.bytes_down)} down in all "
        "rounds and silos"
    )
    if plan.epsilon:
        yield from _noise(config, plan)
    yield from warnings(config, plan.notices)


def _noise(config: Config, plan: Plan) -> Iterator[str]:
    privacy = config.privacy
    hidden = privacy.unit == "client"
    if privacy.target_epsilon is not None:
        yield (
            f"budget: ε = {number_text(privacy.target_epsilon)} at δ = "
            f"{number_text(privacy.target_delta)} for {'every client' if hidden else 'each silo'}"
            f"{_reserve(config)}"
        )
    yield CLIENT_NOISE if hidden else RECORD_NOISE
    yield verdict(plan.noise_to_signal)
    if privacy.noise == "correlated":
        yield CORRELATED_NOISE
    if len(plan.silos) > 1:
        yield (
            f"the mean over {len(plan.silos)} silos keeps {plan.averaged:.0%} of that noise, as "
            "theirs is independent"
        )


def _reserve(config: Config) -> str:
    """What else the budget pays for."""
    if config.privacy.noise == "correlated":
        return "; rounds of correlated noise are never trained again, so nothing is in reserve"
    rounds = count_text(config.privacy.reserve_rounds, "round")
    return f"; σ also pays for {rounds} in reserve, so that the last ε above is below the budget"
