"""What silos that a round does not ask cost it: the same cohort out of few silos, and out of many.

``python -m benchmarks.many_silos [--quick]``

Silos of 20 short records on a tiny BERT of two layers, each hidden at a given noise; rounds draw
their cohort by chance. By CPU time of the process, in one thread; memory is what the process took
at most, first when it was built, then over the rounds. Building, the scores before the first round
and the end look at every silo once, and are told apart.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from statistics import median

from silotune import ExampleDP, Federation
from silotune.methods import FFALoRA
from silotune.objectives import SequenceClassification
from silotune.optim import SGD
from silotune.testing.tiny_models import tiny_bert

from .measure import in_child, print_json, print_table

RECORDS, WORDS = 20, ("slept", "ran", "ate", "saw", "bird", "mouse", "today", "again")


@dataclass(frozen=True)
class Crowd:
    """How many silos there are, how many a round asks on average, and how many rounds."""

    silos: int
    asked: int
    rounds: int


@dataclass(frozen=True)
class Cost:
    """CPU seconds of building and first scores, of a round, and of the end; MiB at most."""

    begin: float
    round: float
    end: float
    built: float
    grown: float


def cost(crowd: Crowd) -> Cost:
    """Of a whole run."""
    with tempfile.TemporaryDirectory() as place:
        model = tiny_bert(Path(place) / "model")
        run = _federation(crowd, model).rounds(Path(place) / "run")
        spent, memory = [], []
        while True:
            begun = time.process_time()
            over = next(run, None) is None
            spent.append(time.process_time() - begun)
            memory.append(getrusage(RUSAGE_SELF).ru_maxrss / 1024)
            if over:
                break
    begin, *between, _, end = spent  # the last round is scored
    return Cost(begin, median(between), end, memory[1], memory[-3] - memory[1])


def _federation(crowd: Crowd, model: Path) -> Federation:
    draw = random.Random(0)

    def note() -> dict[str, str]:
        label = draw.choice(("cat", "dog"))
        return {"text": " ".join((label, *draw.choices(WORDS, k=5))), "label": label}

    return Federation(
        model=str(model),
        clients={f"silo-{i:05}": [note() for _ in range(RECORDS)] for i in range(crowd.silos)},
        objective=SequenceClassification(
            text="text", label="label", labels=("cat", "dog"), max_length=16
        ),
        method=FFALoRA(r=2),
        optimizer=SGD(lr=0.05),
        privacy=ExampleDP(noise_multiplier=2.0, target_delta=1e-3),
        num_examples=16,
        rounds=crowd.rounds,
        local_steps=2,
        batch_size=8,
        valid_fraction=0.11,
        cohort_rate=crowd.asked / crowd.silos,
        eval_every=crowd.rounds,
        lifetime="off",
        threads=1,
    )


def main() -> None:
    """What the module's head says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    few, many, rounds = (20, 40, 4) if quick else (200, 2000, 12)
    asked = 5 if quick else 40
    costs = {n: in_child(cost, Crowd(n, asked, rounds)) for n in (few, many)}
    rows = [
        [
            f"{n:,}",
            f"{c.begin:.1f}",
            f"{c.round:.3f}",
            f"{c.end:.1f}",
            f"{c.built:.0f}",
            f"{c.grown:.0f}",
        ]
        for n, c in costs.items()
    ]
    header = ["silos", "s to begin", "s a round", "s to end", "MiB when begun", "MiB more later"]
    print_table(f"About {asked} silos a round", header, rows)
    print_json(
        benchmark="many_silos",
        seconds_a_round={str(n): round(c.round, 4) for n, c in costs.items()},
        slower=round(costs[many].round / costs[few].round, 3),
        mib_more=round(costs[many].grown - costs[few].grown, 1),
    )


if __name__ == "__main__":
    main()
