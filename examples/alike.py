"""Made-up pairs of three clinics: a clinician's words, a patient's, and how near they are.

``python examples/alike.py`` writes ``alike/<clinic>/<part>.jsonl`` with ``noted``, ``told`` and
``score``: 5 where both say the same complaint, 2 where they are of one department, 0 otherwise.
``examples/alike.yaml`` learns vectors of texts whose cosines say so. Complaints of the test part
are in no other. No real person is behind any of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

from silotune.data.demo import CLINICS
from silotune.data.demo.phrases import complaints

RECORDS = {"train": 2000, "test": 300}
"""Of each clinic."""

KEPT = 3
"""Complaints of each department that are for the test part alone."""

SAME, NEAR, FAR = 5, 2, 0


def records(clinic: str, part: str) -> Iterator[dict[str, object]]:
    """The same in every run."""
    draw, style = Random(f"{clinic} {part}"), CLINICS[clinic]
    known = complaints()
    some = slice(-KEPT, None) if part == "test" else slice(0, -KEPT)
    those = {name: found[some] for name, found in known.items()}
    for _ in range(RECORDS[part]):
        department = draw.choice(sorted(those))
        noted = draw.choice(those[department])
        score = draw.choice((SAME, NEAR, FAR))
        if score == SAME:
            told = noted
        elif score == NEAR:
            told = draw.choice([other for other in those[department] if other != noted])
        else:
            told = draw.choice(those[draw.choice([d for d in sorted(those) if d != department])])
        onset = draw.choice(style.onsets)
        yield {"noted": f"{noted[0]}, {onset}", "told": told[1], "score": score}


def main() -> None:
    for clinic in CLINICS:
        for part in RECORDS:
            file = Path("alike", clinic, f"{part}.jsonl")
            file.parent.mkdir(parents=True, exist_ok=True)
            rows = map(json.dumps, records(clinic, part))
            file.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
