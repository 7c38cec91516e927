"""Made-up records: of the columns that an objective reads, saying nothing of anybody."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path

from silotune.core.files import write_bytes
from silotune.objectives import Objective, find

_MORE = 6
"""Words after the first one of a text."""

_WORDS = ("when", "the", "patient", "invoice", "sample", "was", "seen", "again", "today", "late")


def made_up(folder: Path, site: str, objective: Objective, number: int) -> Path:
    """Write so many records of an objective's columns; gives their file.

    Args:
        folder: that does not exist yet.
        site: whose they are; equal names have equal records.
        objective: says what a record is.
        number: of records.

    Raises:
        ValueError: if the label set is not declared.
    """
    draw = random.Random(site)
    labels = tuple(objective.labels or objective.label_names or ())
    if objective.label_names is None:
        raise ValueError("data.labels: list them, as sites must agree on them beforehand")

    def text(word: str) -> str:
        return " ".join([word, *draw.choices(_WORDS, k=_MORE)])

    def row() -> dict[str, object]:
        label = draw.choice(labels) if labels else "note"
        made: dict[str, object] = {}
        for role, column in objective.columns.items():
            if role == "label":
                made |= _target(objective, column, label, draw)
            elif role == "words":
                made[str(column)] = text(label).split(" ")
            elif role == "tags":
                made[str(column)] = [f"B-{label}", *["O"] * (label.count(" ") + _MORE)]
            elif role == "spans":
                made[str(column)] = [{"start": 0, "end": len(label), "label": label}]
            elif role == "messages":
                turns = [("user", text("ask")), ("assistant", text("answer"))]
                made[str(column)] = [{"role": who, "content": said} for who, said in turns]
            else:
                made[str(column)] = text(str(label))
        return made

    folder.mkdir(parents=True)
    file = folder / "records.jsonl"
    write_bytes(file, b"".join(_line(row()) for _ in range(number)))
    return file


def _target(
    objective: Objective, columns: str | tuple[str, ...], label: str, draw: random.Random
) -> dict[str, object]:
    """What a record is learned with, by column."""
    target = find(objective.task).target
    if target == "label":
        return {str(columns): label}
    if target == "labels" and isinstance(columns, str):
        return {columns: [label]}
    names = [columns] if isinstance(columns, str) else columns
    if target == "labels":
        labels = objective.label_names or ()
        return {name: int(label == own) for name, own in zip(names, labels, strict=True)}
    if target == "score":
        return {str(columns): draw.uniform(*objective.constants["score_range"])}
    each = zip(names, objective.constants["mean"], objective.constants["scale"], strict=True)
    return {name: draw.gauss(mean, scale) for name, mean, scale in each}


def _line(row: Mapping[str, object]) -> bytes:
    return (json.dumps(row, ensure_ascii=False) + "\n").encode()
