"""The book for life: what telling records again costs, and what a charge costs as it fills.

Records are beside what every run does with them anyway (checking columns); a charge is beside the
same line in a run's own ledger; opening is beside reading as many lines of a ledger.
"""

from __future__ import annotations

import hashlib
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from datasets import Dataset

from silotune.core.files import append_line, json_line
from silotune.data.columns import Columns, filled_rows, readable
from silotune.data.record_digests import record_digests
from silotune.privacy.accounting.charges import Charge
from silotune.privacy.ledger.chain import read_ledger
from silotune.privacy.ledger.entry import NOTHING, LedgerEntry, written
from silotune.privacy.lifetime.book import Book
from silotune.privacy.lifetime.budget import Account, Ceiling, Run
from silotune.privacy.lifetime.record_set import RecordSet, histories, keyed

from .measure import arguments, clock_for, in_turns, print_json, print_table, ratio

CHARGE = Charge(0.01, 1.0, 10)
WORDS = [f"word{i}" for i in range(5000)]


def main() -> None:
    """All of it, as tables and one line of JSON."""
    given = arguments(__doc__ or "").parse_args()
    clock = clock_for(given.threads)
    records, lines, repetitions = (2_000, 500, 3) if given.quick else (100_000, 100_000, 5)
    with tempfile.TemporaryDirectory() as place:
        figures = {
            **telling(records, repetitions, clock),
            **filling(Path(place), lines, repetitions, clock),
        }
    print_json(**figures)


def telling(records: int, repetitions: int, clock: Callable[[], float]) -> dict[str, Any]:
    """Digests of records, and the sets among ten others that they were in."""
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=40)) for _ in range(records)]
    table = Dataset.from_dict({"text": texts, "label": [i % 2 for i in range(records)]})
    columns, key = Columns(text="text", label="label"), b"k" * 32

    def check() -> object:
        return filled_rows(readable(table, columns, ("0", "1"), "the table"))

    whole = keyed(record_digests(table), key)
    mine = RecordSet(where="", whose="north", digests=whole)
    others = [RecordSet(where="", whose=f"{i}", digests=whole[i::10]) for i in range(10)]
    known = {other.id: other for other in others}
    runs = {
        "check columns": check,
        "digest records": lambda: keyed(record_digests(table), key),
        "ten other sets": lambda: histories(mine, known),
    }
    return told(f"{records:,} records of 40 words", "check columns", runs, repetitions, clock)


def filling(
    place: Path, lines: int, repetitions: int, clock: Callable[[], float]
) -> dict[str, Any]:
    """A charge in a young book and in a full one, and opening the full one."""
    young, full = Book(place / "young"), Book(place / "full")
    digests = keyed((str(i).encode() for i in range(1000)), b"k")
    records = RecordSet(where="/data", whose="north", digests=digests)
    plan = (("update", Charge(0.01, 1.0, 10**6)),)
    run = Run(silo="north", relation="add-remove", delta=1e-5, planned=plan)
    accounts = {
        name: Account(book, records, run, Ceiling(epsilon=1e9, delta=1e-5))
        for name, book in (("young", young), ("full", full))
    }
    accounts["full"].pay(entry("earlier", 0))
    accounts["young"].pay(entry("earlier", 0))
    fill(place, lines)
    ledger, previous = place / "ledger.jsonl", NOTHING
    with ledger.open("wb") as file:
        for i in range(1, lines + 1):
            file.write(line := written(i, previous, entry("earlier", 0)))
            previous = hashlib.sha256(line).hexdigest()

    def charge(account: Account) -> Callable[[], object]:
        def act() -> None:
            for i in range(10):
                account.check("now", "update", CHARGE, ())
                account.pay(entry("now", i))

        return act

    def append() -> None:
        for i in range(10):
            append_line(place / "peer.jsonl", entry("now", i).to_json())

    figures = told(
        "ten charges",
        "in a ledger alone",
        {
            "in a ledger alone": append,
            "in a young book": charge(accounts["young"]),
            f"in a book of {lines:,} lines": charge(accounts["full"]),
        },
        repetitions,
        clock,
    )
    return figures | told(
        f"opening {lines:,} lines",
        "a ledger",
        {"a ledger": lambda: read_ledger(ledger), "a book": lambda: Book(place / "full")},
        repetitions,
        clock,
    )


def fill(place: Path, lines: int) -> None:
    """Many more lines like the first, by ten earlier runs."""
    folder = place / "full"
    last = (folder / "book.jsonl").read_bytes()
    values = json.loads(last)
    with (folder / "book.jsonl").open("ab") as book:
        for i in range(1, lines):
            previous = hashlib.sha256(last).hexdigest()
            values |= {"number": i, "previous": previous, "run": f"earlier {i % 10}"}
            book.write(last := json_line(values))
    head = {"lines": lines, "digest": hashlib.sha256(last).hexdigest()}
    (folder / "head").write_text(json.dumps(head))


def entry(name: str, round: int) -> LedgerEntry:
    return LedgerEntry(
        run=name,
        silo="north",
        round=round,
        attempt=0,
        charge=CHARGE,
        max_grad_norm=1.0,
        time="2026-01-01T00:00:00+00:00",
    )


def told(
    title: str,
    peer: str,
    runs: dict[str, Callable[[], object]],
    repetitions: int,
    clock: Callable[[], float],
) -> dict[str, Any]:
    seconds = in_turns(runs, repetitions, clock)
    ratios = {name: ratio(times, seconds[peer]) for name, times in seconds.items()}
    rows = [[n, f"{median(s):.4f}", str(ratios[n])] for n, s in seconds.items()]
    print_table(title, ["", "seconds", f"to {peer}"], rows)
    return {
        f"{title}: {name}": {"seconds": round(median(s), 5), "ratio": ratios[name].to_json()}
        for name, s in seconds.items()
    }


if __name__ == "__main__":
    main()
