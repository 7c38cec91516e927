"""Ways of sharing on real text: every method tuned alike, then three seeds and the test, once.

``python -m benchmarks.compare_sharing --data FOLDER --out FOLDER [--task sst2 qnli]
[--unit none example] [--method NAME ...] [--minutes N] [--quick]``

MiniLM over three silos whose labels are skewed severely, with nothing hidden (AdamW) or every
record at epsilon 6 (SGD). Three rates each on seed 0, scored on records of ``train`` that nobody
trains on; then three seeds at the best of them, scored on the test records, which are looked at
nowhere else. FlexLoRA has ranks 4, 8 and 16, FLoRA an A of every silo's own, FedFTG a local
optimiser that is carried on.

Each run is a cell, a file of one line in ``--out``. What has one is not run again, so that the
whole can be stopped, continued and divided: two processes take different methods, or units. The
table is made of all cells that are there; a method that the package lacks is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pyarrow.parquet as pq

from silotune import ExampleDP, Federation, NoDP, Partition, Splits
from silotune.methods import Method, built_in
from silotune.methods.axes import IncompatibleMethodError
from silotune.methods.rates import usual_rate
from silotune.models.hub import bundled_minilm
from silotune.objectives import SequenceClassification
from silotune.optim import SGD, AdamW

from .learning_rates import Outcome, trained

SILOS, RANKS = 3, (4, 8, 16)
EPSILON, DELTA, CLIP = 6.0, 1e-5, 1.0
SEEDS = (0, 1, 2)
TIMES_USUAL = (0.25, 1.0, 4.0)
"""Rates under privacy, by the usual one of the method."""

SLOW, FAST = (0.0005, 0.002, 0.008), (0.002, 0.008, 0.03)
"""Rates of AdamW: of two factors, and of one alone (docs/log.md)."""

METHODS: Mapping[str, Mapping[str, Any]] = {
    "fedit": {},
    "ffa-lora": {"rates": FAST},
    "lora-fair": {},
    "flexlora": {"ranks": True},
    "flora": {},
    "fedftg": {"rates": FAST, "galore_gap": 10, "local_state": "carried"},
    "fed-sb": {"rates": FAST},
}
"""Name -> its rates of AdamW, options, and whether its silos have ranks of their own."""


@dataclass(frozen=True)
class Task:
    """One data set: what is read, and of which files; ``tokens`` of a record at most."""

    folder: str
    columns: Mapping[str, str]
    labels: Mapping[str, str]
    test: str
    tokens: int


TASKS = {
    "sst2": Task(
        folder="glue_sst2",
        columns={"text": "sentence"},
        labels={
            "0": "a negative, bad, disappointing film review",
            "1": "a positive, good, delightful film review",
        },
        test="test_labeled",
        tokens=64,
    ),
    "qnli": Task(
        folder="glue_qnli",
        columns={"text": "question", "text_pair": "sentence"},
        labels={
            "0": "the sentence answers the question",
            "1": "the sentence does not answer the question",
        },
        test="dev",
        tokens=48,
    ),
}
POOL, DEV, TEST = {"none": 4000, "example": 12000}, 600, 1000
"""Records that are divided among the silos, and the most that are scored on."""

COURSE = {
    "none": {"rounds": 10, "local_steps": 5, "batch_size": 16},
    "example": {"rounds": 8, "local_steps": 4, "batch_size": 32},
}
"""About half a minute of CPU time a run."""

QUICK = {"rounds": 2, "local_steps": 1, "batch_size": 8}
"""To see that everything runs."""


@dataclass(frozen=True)
class Cell:
    """One run; ``part`` is what it is scored on, ``dev`` or ``test``."""

    task: str
    unit: str
    method: str
    rate: float
    seed: int
    part: str
    quick: bool = False

    @property
    def course(self) -> Mapping[str, int]:
        """Rounds, local steps and batch."""
        return QUICK if self.quick else COURSE[self.unit]

    def file(self, out: Path) -> Path:
        """Where its line is."""
        name = f"{self.task}-{self.unit}-{self.method}-{self.rate:g}-{self.seed}-{self.part}"
        name += "-quick" * self.quick
        return out / f"{name}.json"

    def texts(self, out: Path) -> Path:
        """Where its records are, which it shares with others of its kind."""
        return out / f"{self.task}-{self.unit}-{self.part}{'-quick' * self.quick}"


@dataclass(frozen=True)
class Score:
    """Accuracies; ``after`` is a word where there is none. CPU seconds; bytes a silo sent last."""

    before: float
    after: float | str
    bytes_up: float
    seconds: float


def rates(unit: str, name: str) -> Sequence[float]:
    """The three that a method is tried at."""
    if unit == "none":
        found: Sequence[float] = METHODS[name].get("rates", SLOW)
        return found
    usual = usual_rate(built_in()[name], "sgd", CLIP)
    return tuple(times * usual for times in TIMES_USUAL)


def method_of(name: str) -> Method:
    """As it is compared."""
    kind, own = built_in()[name], METHODS[name]
    options: dict[str, Any] = {"target_modules": ("query", "value")}
    options["layers_to_transform"] = (3, 4, 5)
    if name not in ("fedftg", "fed-sb"):
        options |= {"r": 8, "lora_alpha": 8, "init_lora_weights": "orthonormal"}
    if own.get("ranks"):
        options |= {"r": 8, "ranks": {f"silo-{i}": rank for i, rank in enumerate(RANKS)}}
    if "galore_gap" in own:
        options["galore_gap"] = own["galore_gap"]
    return kind(**options)


def described(cell: Cell, data: Path, out: Path) -> Federation:
    """The federation of a cell.

    Raises:
        IncompatibleMethodError: if the method cannot run so.
    """
    task, private = TASKS[cell.task], cell.unit == "example"
    rows = pq.read_table(data / task.folder / "train.parquet").to_pandas()
    rows = rows.sample(DEV + POOL[cell.unit], random_state=0)
    held = rows[: 50 if cell.quick else DEV]
    if cell.part == "test":
        held = pq.read_table(data / task.folder / f"{task.test}.parquet").to_pandas()
        held = held.sample(50 if cell.quick else TEST, random_state=0)
    return Federation(
        model=str(bundled_minilm()),
        clients=_written(rows[DEV:], held, cell.texts(out)),
        splits=Splits(train="train", valid="valid"),
        partition=Partition(num=SILOS, split="label-skew-severe"),
        objective=SequenceClassification(
            **task.columns,
            label="label",
            labels=dict(task.labels),
            head_init="label-prototypes",
            head_scale=1.0 if private else 2.0,
            pooling="mean",
            max_length=task.tokens,
        ),
        method=method_of(cell.method),
        optimizer=SGD(lr=cell.rate) if private else AdamW(lr=cell.rate),
        privacy=ExampleDP(target_epsilon=EPSILON, target_delta=DELTA, max_grad_norm=CLIP)
        if private
        else NoDP(),
        local_state=METHODS[cell.method].get("local_state", "fresh"),
        eval_every=cell.course["rounds"],
        eval_batch_size=200,
        micro_batch_size=64,
        largest_update=1e6,
        seed=cell.seed,
        threads=1,
        lifetime="off",
        **cell.course,
    )


def cells(task: str, unit: str, name: str, out: Path, *, quick: bool) -> Iterator[Cell]:
    """Of one row of the table: its rates on dev, then its seeds on test, at the best of them."""
    tried = [Cell(task, unit, name, rate, SEEDS[0], "dev", quick) for rate in rates(unit, name)]
    yield from tried[:1] if quick else tried
    if (best := best_of(tried, out)) is not None:
        yield from (Cell(task, unit, name, best, seed, "test", quick) for seed in SEEDS)


def best_of(tried: Sequence[Cell], out: Path) -> float | None:
    """The rate that did best on dev; None where none did anything."""
    found = {cell.rate: score.after for cell in tried if (score := read(cell, out))}
    numbers = {rate: after for rate, after in found.items() if isinstance(after, float)}
    return max(numbers, key=lambda rate: numbers[rate]) if numbers else None


def read(cell: Cell, out: Path) -> Score | None:
    """The score of a cell; None if it has not run."""
    file = cell.file(out)
    if not file.exists():
        return None
    values = json.loads(file.read_text())
    return Score(**{name: values[name] for name in Score.__dataclass_fields__})


def run(cell: Cell, data: Path, out: Path) -> Score:
    """Train it, and write its line."""
    begun = time.process_time()
    try:
        outcome = trained(described(cell, data, out))
    except IncompatibleMethodError as error:
        outcome = Outcome(0.0, "refused")
        print(f"{cell}: {error}", flush=True)
    score = Score(outcome.before, outcome.after, outcome.bytes_up, time.process_time() - begun)
    file = cell.file(out)
    unfinished = file.with_suffix(".part")
    unfinished.write_text(json.dumps({**asdict(cell), **asdict(score)}) + "\n")
    unfinished.replace(file)
    return score


def table(tasks: Sequence[str], units: Sequence[str], out: Path, *, quick: bool) -> Iterator[str]:
    """Every row that has a cell, as Markdown."""
    yield "| task | hidden | method | dev by rate | best | test, by seed | kB up | CPU s a run |"
    yield "|---|---|---|---|---|---|---|---|"
    for task, unit, name in product(tasks, units, METHODS):
        if name not in built_in():
            continue
        found = [(cell, read(cell, out)) for cell in cells(task, unit, name, out, quick=quick)]
        dev = [(c, s) for c, s in found if s and c.part == "dev"]
        test = [(c, s) for c, s in found if s and c.part == "test"]
        if not dev:
            continue
        tried = ", ".join(f"{c.rate:g}: {_shown(s.after)}" for c, s in dev)
        best = f"{test[0][0].rate:g}" if test else ""
        seconds = mean(s.seconds for _, s in (*dev, *test))
        sent = max(s.bytes_up for _, s in dev) / 1000
        scores = [s.after for _, s in test if isinstance(s.after, float)]
        yield (
            f"| {task} | {unit} | {name} | {tried} | {best} | {_spread(scores)} | {sent:.0f} | "
            f"{seconds:.0f} |"
        )


def _shown(after: float | str) -> str:
    return after if isinstance(after, str) else f"{100 * after:.1f}"


def _spread(scores: Sequence[float]) -> str:
    if len(scores) < 2:
        return ", ".join(map(_shown, scores))
    return f"{100 * mean(scores):.1f} ± {100 * stdev(scores):.1f} ({len(scores)})"


def _written(train: Any, valid: Any, folder: Path) -> Path:
    """Records in files of a folder, from which they are dealt out to the silos."""
    folder.mkdir(exist_ok=True)
    for part, rows in (("train", train), ("valid", valid)):
        file, unfinished = folder / f"{part}.parquet", folder / f"{part}.{os.getpid()}"
        if not file.exists():
            rows.astype({"label": str}).to_parquet(unfinished, index=False)
            unfinished.replace(file)
    return folder


def main() -> None:
    """What the module's head says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--task", nargs="*", default=["sst2"], choices=list(TASKS))
    parser.add_argument("--unit", nargs="*", default=list(COURSE), choices=list(COURSE))
    parser.add_argument("--method", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    for task, unit, name in product(args.task, args.unit, args.method):
        if name not in built_in():
            print(f"{name}: this silotune has no such method", flush=True)
            continue
        for cell in cells(task, unit, name, args.out, quick=args.quick):
            if read(cell, args.out) is not None:
                continue
            if time.monotonic() - begun > 60 * args.minutes:
                raise SystemExit(3)
            score = run(cell, args.data, args.out)
            print(f"{cell.file(args.out).stem}: {_shown(score.after)}, {score.seconds:.0f} s CPU")
    print("\n".join(table(args.task, args.unit, args.out, quick=args.quick)))


if __name__ == "__main__":
    main()
