"""A small run: two silos of notes about cats and dogs, and a tiny model from a seed.

Of the 24 records of a silo the seed holds out two.
"""

import csv
import json
import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from by_config import opened
from silotune.config import Config, load_config
from silotune.federation.run import finish, rounds
from silotune.privacy import LedgerEntry
from silotune.privacy.ledger.chain import Chain
from silotune.privacy.ledger.entry import LedgerLine, written
from silotune.privacy.ledger.ledger import Ledger
from silotune.runs.folder import RoundRecord

WORDS = ("slept", "ran", "ate", "saw", "a", "bird", "the", "mouse", "today", "again")
SILOS = ("east", "west")
NO_WORKER = ("no", "worker")


def notes(n: int = 24, silos: tuple[str, ...] = SILOS, seed: int = 0) -> list[dict[str, str]]:
    """``n`` records of each silo."""
    draw = random.Random(seed)
    return [_note(draw, silo) for silo in silos for _ in range(n)]


def _note(draw: random.Random, silo: str) -> dict[str, str]:
    label = draw.choice(["cat", "dog"])
    return {"text": " ".join([label, *draw.choices(WORDS, k=5)]), "label": label, "silo": silo}


def write_csv(path: Path, records: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows(records)


def write_small(folder: Path, model: Path) -> Path:
    """``notes.csv`` and ``small.yaml``, which reads it; gives the latter."""
    write_csv(folder / "notes.csv", notes())
    config = folder / "small.yaml"
    config.write_text(
        f"""\
model: {{name_or_path: {json.dumps(str(model))}, task: sequence-classification}}
data:
  path: {json.dumps(str(folder / "notes.csv"))}
  columns: {{text: text, label: label}}
  labels: [cat, dog]
  silos: {{by: silo}}
  max_length: 32
  valid_fraction: 0.11
method: {{name: ffa-lora, r: 2}}
privacy: {{unit: none}}
train:
  num_rounds: 3
  local_steps: 2
  batch_size: 8
  per_device_train_batch_size: 8
  optimizer: sgd
  learning_rate: 0.5
output_dir: {json.dumps(str(folder / "run"))}
"""
    )
    return config


PRIVATE = (
    "privacy={unit: example, noise_multiplier: 2, target_delta: 1e-3}",
    "data.num_examples={east: 20, west: 20}",
)
"""Overrides; a given noise needs no calibration, which takes seconds."""

BUDGET = ("privacy={unit: example, target_epsilon: 8, target_delta: 1e-3}", PRIVATE[1])
"""The same for all tests, so that its calibration is done once and then remembered."""


def small(config: Path, *overrides: str) -> Config:
    return load_config(config, overrides)


def train(config: Config, *, resume: bool = False, until: int | None = None) -> list[RoundRecord]:
    """Run to the end, or drop everything as soon as round ``until`` is on the disk."""
    done = []
    with opened(config, ["silotune"], NO_WORKER, resume=resume) as job:
        for record in rounds(job):
            done.append(record)
            if record.round == until:
                return done
        finish(job)
    return done


def chain_of(entries: Iterable[LedgerEntry]) -> Chain:
    """A ledger of charges, without a file."""
    chain = Chain()
    for entry in entries:
        line = written(len(chain) + 1, chain.head, entry)
        chain.take(LedgerLine.parse(line, "a test"), "a test")
    return chain


def charge_again(ledger: Path, times: int) -> None:
    """As if the first round had been trained again and again."""
    own = Ledger(ledger)
    own.follow()
    for attempt in range(1, times + 1):
        own.append(replace(own.chain.entries[0], attempt=attempt))


def weights(config: Config) -> bytes:
    return (Path(config.output_dir) / "adapter" / "adapter_model.safetensors").read_bytes()
