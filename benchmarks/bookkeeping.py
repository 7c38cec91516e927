"""What does a round's bookkeeping cost, and does it grow with the rounds that were before it?

``python -m benchmarks.bookkeeping [--quick] [--threads N]``

Whole private runs in which nothing is trained: a silo gives back what it was sent. What is left is
charging, ledgers, epsilon, metrics, the certificate and the checkpoint, and the messages of a tiny
adapter. Early rounds are set beside late ones of the same run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any
from unittest.mock import patch

import silotune as st
from silotune.core import Factors
from silotune.engine.local_training import Trained
from silotune.federation.opening import opened
from silotune.federation.run import rounds
from silotune.federation.scoring import Scores
from silotune.privacy.accounting import accountant
from silotune.testing.tiny_models import tiny_bert

from .measure import Clock, arguments, clock_for, print_json, print_table

SIZES = (20, 22, 24, 26)
"""Declared numbers of records; silos take turns with them."""


@dataclass(frozen=True)
class Case:
    """A run.

    Attributes:
        silos: how many.
        rounds: how many.
        window: rounds of which a median is taken, at either end.
    """

    silos: int
    rounds: int
    window: int


FULL = (Case(3, 1000, 100), Case(500, 100, 20))
QUICK = (Case(3, 60, 10), Case(20, 20, 5))
WARM_UP = 10
"""Rounds at the beginning that are not looked at."""


def main() -> None:
    """Two runs."""
    options = arguments("Bookkeeping of a round, late and early.").parse_args()
    cpu = clock_for(options.threads)
    epsilons = Spent(cpu)
    clocks = {
        "CPU": cpu,
        "CPU but for epsilon": lambda: cpu() - epsilons.seconds,
        "wall": perf_counter,
    }
    figures, rows = {}, []
    for case in QUICK if options.quick else FULL:
        for clock, seconds in seconds_by_round(case, clocks, epsilons).items():
            early = median(seconds[WARM_UP : WARM_UP + case.window])
            late = median(seconds[-case.window :])
            name = f"{case.silos} silos, {case.rounds} rounds, {clock}"
            rows.append([name, f"{1e3 * early:.1f}", f"{1e3 * late:.1f}", f"{late / early:.3f}"])
            figures[f"{case.silos} silos, {clock}"] = {
                "early_ms": round(1e3 * early, 2),
                "late_ms": round(1e3 * late, 2),
                "late_to_early": round(late / early, 4),
                "total_s": round(sum(seconds), 1),
            }
    header = ["", "early, ms a round", "late, ms a round", "late / early"]
    print_table("Bookkeeping alone", header, rows)
    print_json(benchmark="bookkeeping", threads=options.threads, **figures)


@dataclass
class Spent:
    """Seconds that composing privacy losses took: they widen with epsilon, on whatever books.

    Attributes:
        clock: by which.
        seconds: so far.
    """

    clock: Clock
    seconds: float = 0.0

    def timed(self, compose: Callable[..., float]) -> Callable[..., float]:
        """The same function, with its time taken."""

        def call(*arguments: object) -> float:
            start = self.clock()
            try:
                return compose(*arguments)
            finally:
                self.seconds += self.clock() - start

        return call


def seconds_by_round(
    case: Case, clocks: Mapping[str, Clock], epsilons: Spent
) -> dict[str, list[float]]:
    """Seconds of every round of a run that trains nothing, by every clock.

    The wall clock counts what the disk takes, and whatever else the machine does.
    """
    composed = patch.object(accountant, "_epsilons", epsilons.timed(accountant._epsilons))
    with tempfile.TemporaryDirectory() as name, untrained(), composed:
        scratch = Path(name)
        made = federation(case, tiny_bert(scratch / "model"))
        with opened(made, scratch / "run", resume=False) as job:
            ends = [[clock() for clock in clocks.values()] for _ in rounds(job)]
    return {
        name: [after - before for before, after in pairwise(column)]
        for name, column in zip(clocks, zip(*ends, strict=True), strict=True)
    }


def federation(case: Case, model: Path) -> st.Federation:
    """Silos with a few records each, under a budget that lasts."""
    names = [f"silo-{i:03d}" for i in range(case.silos)]
    sizes = {name: SIZES[i % len(SIZES)] for i, name in enumerate(names)}
    return st.Federation(
        model=str(model),
        clients={name: _records(name, size) for name, size in sizes.items()},
        objective=st.SequenceClassification(
            text="text", label="label", labels=("cat", "dog"), max_length=32
        ),
        method=st.methods.FFALoRA(r=2),
        privacy=st.ExampleDP(target_epsilon=8, target_delta=1e-3),
        rounds=case.rounds,
        local_steps=1,
        batch_size=4,
        micro_batch_size=8,
        num_examples=sizes,
        valid=_records("valid", 2),
        evaluation="public",
        eval_every=10**9,
    )


@contextmanager
def untrained() -> Iterator[None]:
    """Local steps that do nothing, and no scores."""

    def nothing(task: Any, trainer: Any, client: Any, start: Factors, **_: Any) -> Trained:
        return Trained(factors=start, memory={}, dropped=0)

    with (
        patch("silotune.engine.client.local_training", nothing),
        patch("silotune.federation.run.score", lambda *_: Scores()),
    ):
        yield


def _records(silo: str, n: int) -> list[dict[str, str]]:
    return [
        {"text": f"{silo} {i} {'cat' if i % 2 else 'dog'}", "label": "cat" if i % 2 else "dog"}
        for i in range(n)
    ]


if __name__ == "__main__":
    main()
