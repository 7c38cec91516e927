"""Made-up notes of three clinics: which departments should see somebody, and for how many days.

``python examples/consults.py`` writes ``consults/<clinic>/<part>.jsonl`` with ``note``,
``departments`` (a list, which may be empty), ``days`` and ``line``, one line about it; and
``consults-together/<part>.jsonl`` the notes of all clinics, for what is compared with one place.
``examples/consults.yaml`` learns the departments, ``examples/stay.yaml`` the days, and
``examples/summarise.yaml`` to write the line. No real person is behind any of the notes, and how
long somebody stays is a rule with some noise: four days for the heart, half a day for the skin.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random

from silotune.data.demo import CLINICS
from silotune.data.demo.phrases import complaints

RECORDS = {"train": 2400, "test": 300}
"""Of each clinic."""

HOW_MANY = (15, 45, 30, 10)
"""Relative frequency of notes with none, one, two and three departments."""

DAYS = {
    "cardiology": 4.0,
    "dermatology": 0.5,
    "ear-nose-throat": 1.0,
    "gastroenterology": 2.0,
    "neurology": 5.0,
    "orthopaedics": 3.0,
    "pulmonology": 3.5,
    "urology": 1.5,
}

NOTHING = ("routine check, no complaint", "here for a certificate", "vaccination, feels well")


def records(clinic: str, part: str) -> Iterator[dict[str, object]]:
    """The same in every run."""
    draw, style = Random(f"{clinic} {part}"), CLINICS[clinic]
    for _ in range(RECORDS[part]):
        count = draw.choices(range(len(HOW_MANY)), HOW_MANY)[0]
        asked = draw.sample(sorted(DAYS), count)
        words = [draw.choice(complaints()[name])[style.voice] for name in asked]
        told = "; also ".join(words) or draw.choice(NOTHING)
        note = f"{draw.randint(18, 89)}{draw.choice('fm')}, {draw.choice(style.onsets)}: {told}"
        days = max(0.0, 0.5 + sum(DAYS[name] for name in asked) + draw.gauss(0, 0.7))
        line = f"Refer to {' and '.join(sorted(asked))}." if asked else "No referral."
        known = {"departments": sorted(asked), "days": round(days, 1), "line": line}
        yield {"note": note, **known}


def main() -> None:
    for part in RECORDS:
        rows = {clinic: [*records(clinic, part)] for clinic in CLINICS}
        for clinic, own in rows.items():
            _write(Path("consults", clinic, f"{part}.jsonl"), own)
        together = [row for own in rows.values() for row in own]
        _write(Path("consults-together", f"{part}.jsonl"), together)


def _write(file: Path, rows: Iterable[dict[str, object]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    file.write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main()
