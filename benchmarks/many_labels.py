"""Does the way through ``init --data`` learn where labels are many and records few?

``python -m benchmarks.many_labels [--folder DIR] [--seeds N]``

2,000 made requests of 150 intents (ten things to do with fifteen things, said in many ways) at ten
branches with labels of their own mix. ``silotune init`` drafts the configuration by looking at the
file; it is run as it is (epsilon 6), and without privacy. Each run must end above its own start.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .measure import print_json, print_table

RECORDS, BRANCHES = 2000, 10

DOINGS = {
    "order": ("order", "get me", "I would like to have", "please send me", "I need a new one of"),
    "cancel": ("cancel", "I want to stop", "please end", "call off", "I no longer need"),
    "find": ("where is", "I cannot find", "help me locate", "show me where to see", "look up"),
    "change": ("change", "update", "I have to correct", "please modify", "can you adjust"),
    "explain": ("explain", "what is", "I do not understand", "tell me more about", "how works"),
    "pay": ("pay for", "settle", "I want to pay", "how do I transfer money for", "clear"),
    "complain": ("I am unhappy with", "complain about", "this is wrong with", "I dispute", "bad:"),
    "renew": ("renew", "extend", "prolong", "how long is the validity of", "keep running"),
    "lost": ("I lost", "somebody stole", "missing:", "I dropped and never found", "gone:"),
    "share": ("share", "give my partner access to", "add another person to", "lend", "invite to"),
}  # fmt: skip

THINGS = {
    "card": ("my bank card", "the debit card", "my plastic card", "my card"),
    "account": ("my account", "the current account", "my bank account", "my savings account"),
    "loan": ("the loan", "my credit", "the money I borrowed", "my personal loan"),
    "mortgage": ("my mortgage", "the house loan", "the home financing", "the property credit"),
    "insurance": ("my insurance", "the policy", "my cover against accidents", "the insurance plan"),
    "ticket": ("the train ticket", "my ticket", "the rail pass", "my travel pass"),
    "flight": ("my flight", "the plane journey", "the airline booking", "my seat on the plane"),
    "hotel": ("the hotel room", "my hotel stay", "the lodging", "my room for the night"),
    "phone": ("my phone", "the mobile contract", "my cell phone plan", "the handset"),
    "internet": ("the internet at home", "my broadband", "the wifi connection", "my router"),
    "power": ("the electricity", "my power supply", "the energy contract", "my electric meter"),
    "parcel": ("my parcel", "the package", "the delivery", "my shipment"),
    "book": ("the library book", "my novel", "the book I chose", "a volume from the shelf"),
    "medicine": ("my medicine", "the pills", "my prescription", "the drug from the pharmacy"),
    "appointment": ("the appointment", "my visit to the doctor", "the consultation", "my slot"),
}

FRAMES = (
    "{0} {1}", "hello, {0} {1}", "{0} {1} please", "hi there! {0} {1}, it is urgent",
    "good morning, {0} {1} as soon as you can", "{0} {1}. thanks a lot", "um, {0} {1}?",
)  # fmt: skip


def made_requests(seed: int) -> list[dict[str, str]]:
    """Records with ``request``, ``intent`` and ``branch``."""
    draw = np.random.default_rng(seed)
    labels = [(doing, thing) for doing in DOINGS for thing in THINGS]
    shares = draw.dirichlet(np.full(BRANCHES, 2.0), len(labels))
    records = []
    for i in draw.permutation(RECORDS):
        label = int(i) % len(labels)
        doing, thing = labels[label]
        words = str(draw.choice(DOINGS[doing])), str(draw.choice(THINGS[thing]))
        records.append(
            {
                "request": str(draw.choice(FRAMES)).format(*words),
                "intent": f"{doing}_{thing}",
                "branch": f"branch-{draw.choice(BRANCHES, p=shares[label])}",
            }
        )
    return records


def run(folder: Path, name: str, *words: str) -> tuple[float, float]:
    """Accuracy before and after a run of the draft."""
    seen = ("train.eval_every=100", "--output-dir", f"runs/{name}", "--json")
    said = silotune(folder, "run", "intents.yaml", *words, *seen)
    found = json.loads(said)
    return found["before"], found["after"]


def silotune(folder: Path, *words: str) -> str:
    """What the command says on stdout."""
    command = [sys.executable, "-m", "silotune", *words]
    return subprocess.run(command, cwd=folder, check=True, text=True, stdout=subprocess.PIPE).stdout


def write(folder: Path, records: Sequence[dict[str, str]]) -> None:
    """``intents.csv``."""
    with (folder / "intents.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows(records)


def main() -> None:
    """What the module's head says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="to work in; a temporary one if left out")
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        rows, worse = [], []
        for seed in range(args.seeds):
            place = folder / str(seed)
            place.mkdir()
            write(place, made_requests(seed))
            silotune(place, "init", "--data", "intents.csv")
            for name, words in (
                ("epsilon 6", ("privacy.lifetime=off",)),
                ("none", ("privacy.unit=none",)),
            ):
                before, after = run(place, name.replace(" ", "-"), *words, f"train.seed={seed}")
                rows.append([str(seed), name, f"{before:.1%}", f"{after:.1%}"])
                worse += [name] if after <= before else []
        print_table("150 labels", ["seed", "privacy", "before", "after"], rows)
        print_json(rows=rows, worse=worse)
    if worse:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
