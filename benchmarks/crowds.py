"""Clients of a simulation that train together, beside the same clients one after the other.

``python -m benchmarks.crowds [--quick] [--threads N] [--silos N]``

First local training alone, private: K clients and a few records a step, of a tiny BERT and of a
sentence encoder, FFA-LoRA and pairs, in micro-batches of 32. Then whole rounds of many silos of 50
short records on the tiny BERT, with all that is refused, charged, noised, written and averaged.
Both sides take turns.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import silotune as st
from silotune.core import ClientId, ClientTask
from silotune.engine import Client
from silotune.engine.client import alone
from silotune.engine.crowd_training import train_together
from silotune.engine.local_training import Training
from silotune.privacy import Discrete, ExampleLevel, Poisson
from silotune.terms import BuiltModel, Terms, open_unproved
from silotune.testing.tiny_models import tiny_bert

from .measure import Clock, Ratio, arguments, clock_for, in_turns, print_json, print_table, ratio
from .peers import model_folder
from .records import random_phrases

STEPS, RECORDS = 2, 50
LABELS = ("cat", "dog")
WORDS = ("slept", "ran", "ate", "saw", "bird", "mouse", "today", "again")


@dataclass(frozen=True)
class Case:
    """How many clients train together, and how many records a step of each expects."""

    clients: int
    batch: int


FULL = (Case(8, 4), Case(32, 4), Case(8, 16))
QUICK = (Case(4, 4),)


def main() -> None:
    """Both tables."""
    parser = arguments("Clients that train together, beside one after the other.")
    parser.add_argument("--silos", type=int, default=200, help="of whole rounds (default 200)")
    options = parser.parse_args()
    clock, quick = clock_for(options.threads), options.quick
    figures: dict[str, list[float]] = {}
    rows = []
    with tempfile.TemporaryDirectory() as place:
        tiny = tiny_bert(Path(place) / "model")
        models = {"tiny": str(tiny)} if quick else {"tiny": str(tiny), "MiniLM": _minilm(place)}
        for name, model in models.items():
            for method in ("ffa-lora", "fedit"):
                built = _built(model, method)
                for case in QUICK if quick else FULL:
                    found = training(built, case, 2 if quick else 5, clock)
                    title = f"{name}, {method}, K {case.clients}, batch {case.batch}"
                    figures[title] = found.to_json()
                    rows.append([title, str(found)])
        print_table("Local training: one by one to together", ["", "times as fast"], rows)
        silos, crowd = (12, 4) if quick else (options.silos, 32)
        costs = whole_rounds(tiny, silos, crowd, 2 if quick else 3, clock)
    speed = ratio(costs["one by one"], costs["together"])
    middle = {name: sorted(each)[len(each) // 2] for name, each in costs.items()}
    table = [[name, f"{seconds:.2f}"] for name, seconds in middle.items()]
    print_table(f"Rounds of {silos} silos of {RECORDS} records", ["", "s a round"], table)
    print(f"times as fast: {speed}")
    print_json(
        benchmark="crowds",
        threads=options.threads,
        training=figures,
        round_of_silos=silos,
        round_seconds={name: round(seconds, 3) for name, seconds in middle.items()},
        round=speed.to_json(),
    )


def _minilm(place: str) -> str:
    return model_folder(Path(place), quick=False)


def _built(model: str, method: str) -> BuiltModel:
    """Ready to train on queries and values, its head moving."""
    terms = Terms(
        model=model,
        objective=st.SequenceClassification(
            text="text", label="label", labels=LABELS, max_length=66
        ),
        method={"ffa-lora": st.methods.FFALoRA, "fedit": st.methods.FedIT}[method](r=8),
        optimizer=st.optim.SGD(lr=0.1),
        privacy=st.ExampleDP(noise_multiplier=1.0, target_delta=1e-5),
        rounds=1,
        batch_size=4,
    )
    return open_unproved(terms, LABELS)


def training(built: BuiltModel, case: Case, repetitions: int, clock: Clock) -> Ratio:
    """How many times as fast as one after the other clients train together."""
    trainer = built.trainer
    wanted = [_training(built, case, k) for k in range(case.clients)]
    seconds = in_turns(
        {
            "one by one": lambda: [alone(one, trainer) for one in wanted],
            "together": lambda: train_together(wanted, trainer),
        },
        repetitions,
        clock,
    )
    return ratio(seconds["one by one"], seconds["together"])


def _training(built: BuiltModel, case: Case, number: int) -> Training:
    name = ClientId(f"silo-{number:03}")
    client = Client(
        client=name,
        train=random_phrases(number, RECORDS),
        held_out=None,
        privacy=ExampleLevel(
            sampling=Poisson(case.batch / RECORDS),
            noise=Discrete(1.0),
            max_grad_norm=1.0,
            expected_batch_size=case.batch,
            insecure_seed=number,  # so that both sides draw the same records
        ),
    )
    task = ClientTask(
        run="benchmark",
        round=0,
        client=name,
        factors=built.first,
        seeded=(),
        plan=built.plan,
        steps=STEPS,
        learning_rates=(0.1,) * STEPS,
        seed=0,
    )
    return Training(task=task, client=client, start=built.first, memory={}, past=None)


def whole_rounds(
    model: Path, silos: int, crowd: int, repetitions: int, clock: Clock
) -> dict[str, list[float]]:
    """Seconds of rounds of two runs, which take turns; the first round of each warms up."""
    with tempfile.TemporaryDirectory() as place:
        runs = {
            name: _federation(model, silos, at_once, repetitions).rounds(Path(place) / str(at_once))
            for name, at_once in (("one by one", 1), ("together", crowd))
        }
        for run in runs.values():
            next(run)  # before training
        return in_turns({n: partial(_next, r) for n, r in runs.items()}, repetitions, clock)


def _next(run: Iterator[object]) -> None:
    next(run)


def _federation(model: Path, silos: int, crowd: int, repetitions: int) -> st.Federation:
    draw = random.Random(0)

    def note() -> Mapping[str, str]:
        label = draw.choice(LABELS)
        text = " ".join((label, *draw.choices(WORDS, k=draw.randint(1, 9))))
        return {"text": text, "label": label}

    rounds = repetitions + 2  # the last one is scored, and not looked at
    return st.Federation(
        model=str(model),
        clients={f"silo-{i:05}": [note() for _ in range(RECORDS)] for i in range(silos)},
        objective=st.SequenceClassification(
            text="text", label="label", labels=LABELS, max_length=16
        ),
        method=st.methods.FFALoRA(r=2),
        optimizer=st.optim.SGD(lr=0.05),
        privacy=st.ExampleDP(noise_multiplier=2.0, target_delta=1e-3),
        num_examples=40,
        rounds=rounds,
        local_steps=2,
        batch_size=4,
        valid_fraction=0.1,
        eval_every=rounds,
        crowd=crowd,
        lifetime="off",
        threads=1,
    )


if __name__ == "__main__":
    main()
