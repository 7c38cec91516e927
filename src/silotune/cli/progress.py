"""Progress: a bar where there is a terminal, one line a round where there is none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from silotune.certificate.guarantee import NOT_PRIVATE
from silotune.config import Config
from silotune.core.units import epsilon_text, human_bytes, human_seconds, metric_text, number_text
from silotune.federation.baselines import AloneRound
from silotune.federation.time_left import TimeLeft
from silotune.runs.folder import RoundRecord
from silotune.terms import Terms

from .console import say

Show = Callable[[int, str], None]
"""Shows how many steps are done, and what to say of the last one."""


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What to tell of a run's rounds.

    Attributes:
        rounds: in all.
        done: before this process.
        metric: the one to look at first.
        budget: epsilon of each silo; None if there is none.
        seeded: epsilon would hold only if noise were secret.
        scored: whether the state after so many rounds is scored.
        baseline: whether every silo trains alone in the end.
    """

    rounds: int
    done: int
    metric: str
    budget: float | None
    seeded: bool = False
    scored: Callable[[int], bool] = bool
    baseline: bool = False

    @classmethod
    def of(cls, config: Config, terms: Terms, done: int, metric: str) -> Watch:
        """From the configuration, and the terms that it made."""
        return cls(
            rounds=config.train.num_rounds,
            done=done,
            metric=metric,
            budget=config.privacy.target_epsilon,
            seeded=config.privacy.insecure_seeded_noise,
            scored=terms.scored,
            baseline=bool(config.baselines),
        )


def watch_rounds(records: Iterable[RoundRecord], watch: Watch, console: Console) -> None:
    """Run through the rounds and show each."""
    left = TimeLeft(watch.rounds, watch.scored, watch.baseline)
    with _shown(console, "round", watch.rounds, watch.done) as show:
        for record in records:
            words = [*_words(record, watch), *_time(record), left.text(record)]
            show(record.round + 1, "  ".join(filter(None, words)))


def watch_alone(rounds: Iterable[AloneRound], watch: Watch, silos: int, console: Console) -> Alone:
    """Run through the baseline in which each silo trains alone; gives its metrics by silo."""
    metrics: Alone = {}
    total, begun = silos * watch.rounds, monotonic()
    with _shown(console, "alone", total, 0) as show:
        for step in rounds:
            metrics[step.silo] = dict(step.metrics)
            done = (len(metrics) - 1) * watch.rounds + step.round + 1
            left = human_seconds((monotonic() - begun) / done * (total - done))
            if step.metrics:
                value = metric_text(watch.metric, step.metrics.get(watch.metric))
                show(done, f"{step.silo} alone: {watch.metric} {value}  {left} left")
            elif console.is_terminal:
                show(done, f"{step.silo} alone  {left} left")
    return metrics


Alone = dict[str, dict[str, float]]
"""Silo -> metric -> value."""


@contextmanager
def _shown(console: Console, what: str, total: int, done: int) -> Iterator[Show]:
    if not console.is_terminal:
        yield lambda now, text: say(console, f"{what} {now}/{total}  {text}")
        return
    columns = (
        TextColumn(f"{what} {{task.completed:.0f}}/{{task.total:.0f}}"),
        BarColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(what, total=total, completed=done, text="")
        yield lambda now, text: progress.update(bar, completed=now, text=text)


def _words(record: RoundRecord, watch: Watch) -> Iterator[str]:
    if watch.metric in record.metrics:
        yield f"{watch.metric} {metric_text(watch.metric, record.metrics[watch.metric])}"
    if record.epsilon:
        spent = epsilon_text(max(record.epsilon.values()))
        of = f" of {number_text(watch.budget)}" if watch.budget else ""
        yield f"ε {spent}{of}" + (f" ({NOT_PRIVATE}: seeded noise)" if watch.seeded else "")
    if record.round < 0:
        yield "before training"
        return
    yield f"{human_bytes(record.bytes_up)} up, {human_bytes(record.bytes_down)} down"
    for silo, reason in record.missing.items():
        yield f"without {silo} ({reason})"


def _time(record: RoundRecord) -> Iterator[str]:
    """How long a round took, where time is no secret."""
    if record.round >= 0 and math.isfinite(record.seconds):
        yield human_seconds(record.seconds)
