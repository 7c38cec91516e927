"""The outcome of a run: what came of it in all, and for every silo."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from silotune.objectives.registry import goal_of
from silotune.runs.facts import SILO_ALONE, RunFacts
from silotune.runs.folder import RoundRecord
from silotune.runs.privacy_statement import PrivacyStatement

NAN = math.nan


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Totals of a run.

    Attributes:
        metric: the metric to look at first.
        before: its global value before training; NaN if unknown.
        after: its global value after the last round that was scored; NaN if unknown.
        worse: whether training left it worse than it found it; None if either is unknown.
        rounds: whole rounds done.
        seconds: of all rounds; NaN where they are not told.
        bytes_up: to the server, in all.
        bytes_down: to the silos, in all.
    """

    metric: str
    before: float
    after: float
    worse: bool | None
    rounds: int
    seconds: float
    bytes_up: int
    bytes_down: int


@dataclass(frozen=True, kw_only=True)
class SiloOutcome:
    """One silo's part. What is unknown is NaN or None.

    Attributes:
        silo: its name.
        num_examples: declared.
        scored: its held-out records, which the metric is of; None where it has none of its own.
        before: the metric before training.
        alone: after training without the others.
        after: after the last round that was scored.
        epsilon: spent.
    """

    silo: str
    num_examples: int | None = None
    scored: int | None = None
    before: float = NAN
    alone: float = NAN
    after: float = NAN
    epsilon: float = NAN

    def is_worse(self, metric: str) -> bool:
        """Whether training left it worse than it found it, as far as is known."""
        return bool(is_worse(metric, self.before, self.after))


def outcome(rounds: Sequence[RoundRecord], metric: str) -> Outcome:
    """Sum up the rounds of a run."""
    first, last = _ends(rounds)
    return Outcome(
        metric=metric,
        before=_value(first, metric),
        after=_value(last, metric),
        worse=is_worse(metric, _value(first, metric), _value(last, metric), metric in last),
        rounds=sum(record.round >= 0 for record in rounds),
        seconds=math.fsum(record.seconds for record in rounds),
        bytes_up=sum(record.bytes_up for record in rounds),
        bytes_down=sum(record.bytes_down for record in rounds),
    )


def silo_outcomes(
    facts: RunFacts, rounds: Sequence[RoundRecord], statement: PrivacyStatement | None
) -> list[SiloOutcome]:
    """What came of the run for every silo that it declares.

    Where rounds have no silo metrics but there is a baseline, both were scored on the global
    records, and so the silo's metric is the global one.
    """
    alone = facts.baselines.get(SILO_ALONE, {})
    spent = {} if statement is None else {n: s.epsilon for n, s in statement.silos.items()}

    def row(name: str) -> SiloOutcome:
        first, last = _ends(rounds, name, shared=bool(alone))
        return SiloOutcome(
            silo=name,
            num_examples=facts.silos[name].get("num_examples"),
            scored=facts.scored.silos.get(name) if facts.scored else None,
            before=_value(first, facts.metric),
            alone=_value(alone.get(name, {}), facts.metric),
            after=_value(last, facts.metric),
            epsilon=spent.get(name, NAN),
        )

    return [row(name) for name in facts.silos]


def is_worse(metric: str, before: float, after: float, scored: bool = False) -> bool | None:
    """Whether a metric is worse after training than before; None if that is unknown.

    Args:
        metric: its task says whether it is good when large.
        before: NaN if it was not scored.
        after: no number, though it was scored, is worse than any.
        scored: whether it was scored after training.
    """
    if math.isnan(before) or (math.isnan(after) and not scored):
        return None
    return math.isnan(after) or (after < before if goal_of(metric) == "max" else after > before)


def has_silo_metrics(rounds: Sequence[RoundRecord]) -> bool:
    """Whether silos were scored on records of their own."""
    return any(record.silos for record in rounds)


def _ends(
    rounds: Sequence[RoundRecord], silo: str | None = None, *, shared: bool = False
) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """Metrics before training and after the last scored round: global ones, or those of a silo."""

    def metrics(record: RoundRecord) -> Mapping[str, float]:
        if silo is None or (shared and not has_silo_metrics(rounds)):
            return record.metrics
        return record.silos.get(silo, {})

    first = next((metrics(r) for r in rounds if r.round < 0), {})
    last = next((metrics(r) for r in reversed(rounds) if r.round >= 0 and metrics(r)), {})
    return first, last


def _value(metrics: Mapping[str, float | None], name: str) -> float:
    value = metrics.get(name)
    return NAN if value is None else value
