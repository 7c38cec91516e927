"""At which learning rate does each method learn? The evidence for the default rates.

``python -m benchmarks.learning_rates --data FOLDER --out FILE.jsonl [--task NAME ...]
[--method NAME ...] [--minutes N]``

Every method, by SGD and by AdamW (or by the optimiser of its own), with every record hidden at
epsilon 6 and with nothing hidden, at a grid of rates. Three tasks:

- ``intents``: the 77 intents of BANKING77 in three silos of skewed labels, on a small encoder that
  has learned from MiniLM, its head begun at the labels' names;
- ``reviews``: phrases of SST-2 in three silos, on MiniLM with BERT's own pooler and a random head;
- ``turns``: turns of Shakespeare's plays in three silos, on the Llama of stories260K.

Each run adds a line to the file, and what has a line is not run again, so that a sweep can be cut
short and continued; a rate above one that went wrong is not tried. A table is printed at the end.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from datasets import Dataset

from silotune import ExampleDP, Federation, NoDP
from silotune.engine import QuorumError, federate
from silotune.federation.built import build_clients, build_federation
from silotune.federation.scoring import score
from silotune.federation.trained_models import learned_from
from silotune.methods import built_in
from silotune.models.hub import bundled_minilm
from silotune.objectives import CausalLM, SequenceClassification
from silotune.optim import SGD, AdamW
from silotune.runs.folder import RunFolder
from silotune.runtimes import InProcess

from .small_encoder import small_encoder

EPSILON = 6.0
SILOS = 3
RATES = {"sgd": (1.0, 4.0, 16.0), "adamw": (0.001, 0.004, 0.016)}


@dataclass(frozen=True)
class Case:
    """One run of the sweep; ``unit`` is what is hidden."""

    task: str
    method: str
    optimizer: str
    unit: str
    rate: float
    seed: int


@dataclass(frozen=True)
class Outcome:
    """Its scores: accuracy or perplexity; a word in place of the second where there is none.

    Beside them the bytes that one silo sent in its last round.
    """

    before: float
    after: float | str
    bytes_up: float = 0.0


def cases(tasks: Sequence[str], methods: Sequence[str], seeds: int) -> Iterator[Case]:
    """The whole sweep, seed by seed, so that whatever was done is spread evenly."""
    for seed, task, name in product(range(seeds), tasks, methods):
        made_of_adamw = built_in()[name].made_of_adamw
        for optimizer in ("adamw",) if made_of_adamw else ("sgd", "adamw"):
            for unit, rate in product(("example", "none"), RATES[optimizer]):
                yield Case(task, name, optimizer, unit, rate, seed)


def trained(federation: Federation) -> Outcome:
    """Train once, without a folder to keep."""
    torch.set_num_threads(1)
    built = build_federation(federation)
    agreement = built.agreement
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(Path(place))
        clients = build_clients(built, folder.site, "rates", {})
        runtime = InProcess(agreement.model.trainer, clients)

        def scored(state: Any) -> float:
            names = list(agreement.sizes)
            learned = learned_from(state, agreement.model, folder, "rates", names)
            overall = score(built, learned).overall
            return overall.get("perplexity", overall.get("accuracy", 0.0))

        state = agreement.first_state()
        before, sent = scored(state), 0.0
        try:
            for done in federate(agreement.experiment("rates"), runtime, state):
                state, sent = done.state, done.pooled.bytes_up / len(done.pooled.clients)
        except (ValueError, QuorumError):  # numbers that are none are refused by their silo
            return Outcome(before, "diverged")
        after = scored(state)
        return Outcome(before, after if math.isfinite(after) else "diverged", sent)


def described(case: Case, data: Path, encoder: Path) -> Federation:
    """The federation of a case, with the defaults of its method."""
    make = {"sgd": SGD, "adamw": AdamW}[case.optimizer]
    tasks = {"intents": _intents, "reviews": _reviews, "turns": _turns}
    task = tasks[case.task](data, encoder, case.seed)
    return Federation(
        **task,
        method=built_in()[case.method](),
        optimizer=make(lr=case.rate),
        privacy=ExampleDP(target_epsilon=EPSILON) if case.unit == "example" else NoDP(),
        seed=case.seed,
        threads=1,
        lifetime="off",
    )


def _intents(data: Path, encoder: Path, seed: int) -> dict[str, Any]:
    table = pq.read_table(data / "banking77" / "train.parquet").to_pandas()
    test = pq.read_table(data / "banking77" / "test.parquet").to_pandas()
    names = sorted(table["category"].unique())
    draw = np.random.default_rng(seed)
    shares = draw.dirichlet(np.full(SILOS, 1.0), len(names))
    rows = table.sample(3000, random_state=seed)
    silo = [int(draw.choice(SILOS, p=shares[names.index(c)])) for c in rows["category"]]
    return {
        "model": str(encoder),
        "clients": {f"bank-{i}": _table(rows[np.array(silo) == i]) for i in range(SILOS)},
        "valid": _table(test.sample(400, random_state=0)),
        "objective": SequenceClassification(
            text="text",
            label="category",
            labels={name: name.replace("_", " ") for name in names},
            head_init="label-prototypes",
            pooling="mean",
            max_length=24,
        ),
        "rounds": 6,
        "local_steps": 4,
        "batch_size": 32,
        "micro_batch_size": 64,
        "eval_batch_size": 200,
        "eval_every": 6,
    }


def _reviews(data: Path, encoder: Path, seed: int) -> dict[str, Any]:
    rows = pq.read_table(data / "glue_sst2" / "train.parquet").to_pandas()
    rows = rows.sample(3000, random_state=seed)
    test = pq.read_table(data / "glue_sst2" / "dev.parquet").to_pandas()
    return {
        "model": str(bundled_minilm()),
        "clients": {f"site-{i}": _table(rows[i * 1000 : (i + 1) * 1000]) for i in range(SILOS)},
        "valid": _table(test.sample(300, random_state=0)),
        "objective": SequenceClassification(
            text="sentence", label="label", labels=("negative", "positive"), max_length=16
        ),
        "rounds": 6,
        "local_steps": 4,
        "batch_size": 16,
        "micro_batch_size": 32,
        "eval_batch_size": 100,
        "eval_every": 6,
    }


def _turns(data: Path, encoder: Path, seed: int) -> dict[str, Any]:
    rows = pq.read_table(data / "tinyshakespeare" / "turns.parquet").to_pandas()
    rows = rows[rows["text"].str.len() > 40].sample(frac=1.0, random_state=seed)
    model = data.parent / "models" / "stories260K" / "hf"
    return {
        "model": str(model),
        "clients": {f"stage-{i}": _table(rows[i * 1000 : (i + 1) * 1000]) for i in range(SILOS)},
        "valid": _table(rows[3000:3150]),
        "objective": CausalLM(text="text", max_length=24),
        "rounds": 6,
        "local_steps": 4,
        "batch_size": 16,
        "micro_batch_size": 32,
        "eval_batch_size": 100,
        "eval_every": 6,
    }


def _table(rows: Any) -> Dataset:
    return Dataset.from_pandas(rows, preserve_index=False)


def sweep(args: argparse.Namespace) -> None:
    """Run what has no line yet, until the minutes of CPU time are over."""
    encoder = args.out.with_suffix(".encoder")
    if not encoder.exists():
        small_encoder(bundled_minilm() or Path(), public_texts(args.data), encoder)
    done = {case for case, _ in read(args.out)}
    for case in cases(args.task, args.method or list(built_in()), args.seeds):
        if case.optimizer not in args.optimizer or case.unit not in args.unit:
            continue
        if time.process_time() > 60 * args.minutes:
            raise SystemExit(3)
        if case in done or case.method == "mole" or _worse_below(case, args.out):
            continue
        try:
            outcome = trained(described(case, args.data, encoder))
        except ValueError as error:  # a method that cannot be private, or has no head to train
            outcome = Outcome(math.nan, "refused")
            print(case, error, flush=True)
        with args.out.open("a") as file:
            file.write(json.dumps({**asdict(case), **asdict(outcome)}) + "\n")


def _worse_below(case: Case, file: Path) -> bool:
    """Whether a lower rate has gone wrong already, so that this one need not be tried."""
    return any(
        replace(tried, rate=case.rate) == case and tried.rate < case.rate and went_wrong(outcome)
        for tried, outcome in read(file)
    )


def went_wrong(outcome: Outcome) -> bool:
    """Whether a run ended without a number, or far below where it began."""
    if isinstance(outcome.after, str):
        return True
    fell = outcome.before - outcome.after
    return fell > 0.1 if outcome.before <= 1 else fell < 0


def public_texts(data: Path) -> list[str]:
    """What the small encoder learns from."""
    table = pq.read_table(data / "banking77" / "train.parquet").to_pandas()
    reviews = pq.read_table(data / "glue_sst2" / "train.parquet").to_pandas()["sentence"]
    names = [name.replace("_", " ") for name in table["category"].unique()]
    long = reviews[reviews.str.split().str.len() > 4]
    return [
        *table["text"].sample(2500, random_state=0),
        *long.sample(2500, random_state=0),
        *names * 4,
    ]


def read(file: Path) -> list[tuple[Case, Outcome]]:
    """What was measured so far."""
    lines = file.read_text().splitlines() if file.exists() else []
    found = []
    for line in lines:
        values = json.loads(line)
        outcome = Outcome(values.pop("before"), values.pop("after"), values.pop("bytes_up", 0.0))
        found.append((Case(**values), outcome))
    return found


def table(found: Sequence[tuple[Case, Outcome]]) -> Iterator[str]:
    """Where every method ended, by rate, as Markdown."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for case, outcome in sorted(found, key=lambda each: (each[0].rate, each[0].seed)):
        row = rows.setdefault((case.task, case.method, case.optimizer, case.unit), [])
        row[:] = row or [_shown(outcome.before)]
        row.append(f"{case.rate:g}: {_shown(outcome.after)}")
    yield "| task | method | optimiser | hidden | before | after, by rate |"
    yield "|---|---|---|---|---|---|"
    for key, (before, *after) in rows.items():
        yield f"| {' | '.join(key)} | {before} | {'; '.join(after)} |"


def _shown(value: float | str) -> str:
    """Accuracy in per cent, perplexity as it is."""
    if isinstance(value, str):
        return value
    return f"{100 * value:.1f}" if value <= 1 else f"{value:.1f}"


def main() -> None:
    """What the module's head says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--task", nargs="*", default=["intents", "reviews", "turns"])
    parser.add_argument("--method", nargs="*")
    parser.add_argument("--optimizer", nargs="*", default=list(RATES))
    parser.add_argument("--unit", nargs="*", default=["example", "none"])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=20.0)
    args = parser.parse_args()
    sweep(args)
    print("\n".join(table(read(args.out))))


if __name__ == "__main__":
    main()
