"""What does it cost to send updates in fewer bits?

``python -m benchmarks.upload --data FOLDER [--quick]``

The 77 intents of BANKING77 in three silos of skewed labels, on a small encoder
(``learning_rates``), with every record hidden at epsilon 6 and with nothing hidden, by a method
that sends one factor and one that sends both: accuracy and bytes in float32, bfloat16 and int8,
with all else the same.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import get_args

from silotune.core import UploadType
from silotune.models.hub import bundled_minilm

from .learning_rates import Case, described, public_texts, trained
from .measure import print_json, print_table
from .small_encoder import small_encoder

SEEDS = 3
SETTINGS = {
    "ffa-lora, epsilon 6": ("ffa-lora", "sgd", "example", 4.0),
    "fedit, epsilon 6": ("fedit", "sgd", "example", 1.0),
    "ffa-lora, none": ("ffa-lora", "adamw", "none", 0.016),
    "fedit, none": ("fedit", "adamw", "none", 0.016),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="one seed: does it run at all?")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        encoder = Path(place) / "encoder"
        small_encoder(bundled_minilm() or Path(), public_texts(asked.data), encoder)
        found: dict[tuple[str, str], list[list[float]]] = {}
        seeds = range(1 if asked.quick else SEEDS)
        for seed, name, upload in product(seeds, SETTINGS, get_args(UploadType)):
            outcome = run(name, upload, seed, asked.data, encoder)
            found.setdefault((name, upload), []).append(outcome)
            print(seed, name, upload, *outcome, flush=True)
    print_table(
        "accuracy in % before and after (standard deviation over seeds), kB sent by a silo a round",
        ["", "before", *get_args(UploadType), "kB"],
        [_row(name, found) for name in SETTINGS],
    )
    print_json(found={f"{name}, {upload}": each for (name, upload), each in found.items()})


def run(name: str, upload: UploadType, seed: int, data: Path, encoder: Path) -> list[float]:
    """Accuracy before and after, and bytes that one silo sends in a round."""
    method, optimizer, unit, rate = SETTINGS[name]
    case = Case("intents", method, optimizer, unit, rate, seed)
    federation = described(case, data, encoder)
    outcome = trained(federation.with_terms(replace(federation.terms, upload_dtype=upload)))
    return [outcome.before, float(outcome.after), outcome.bytes_up]


def _row(name: str, found: dict[tuple[str, str], list[list[float]]]) -> list[str]:
    """Of one setting, in all types."""
    of = {upload: found[name, upload] for upload in get_args(UploadType)}
    before = mean(each[0] for each in of["float32"])
    sent = " / ".join(f"{each[0][2] / 1000:.1f}" for each in of.values())
    return [name, f"{100 * before:.1f}", *map(_after, of.values()), sent]


def _after(each: list[list[float]]) -> str:
    scores = [100 * after for _, after, _ in each]
    return f"{mean(scores):.1f}" + (f" ({stdev(scores):.1f})" if len(scores) > 1 else "")


if __name__ == "__main__":
    main()
