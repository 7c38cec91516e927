"""``init --data``: a configuration drafted by looking at somebody's data."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from silotune.config import build, in_keys, load_config
from silotune.config.draft import Draft, drafted, open_questions, unused_columns
from silotune.core.units import count_text
from silotune.data import Source, load
from silotune.data.formats import FileOptions
from silotune.data.guess import LOOKED_AT, Guess, guess
from silotune.data.messages import UnreadableError
from silotune.data.second_rows import SecondRow, second_row
from silotune.data.tokenization import whole_lengths
from silotune.federation.inputs import read_tables
from silotune.models.load import tokenizer_at_hand
from silotune.objectives import find

from .console import busy, say, speaker
from .init import free, say_next, write

MOST_ANSWERS = 3
"""Ways of reading that are tried, one after the other."""


def draft(path: Path | None, data: str, task: str | None, model: str | None) -> None:
    """Look at data, write a configuration for them, and say what was guessed and what is open.

    Args:
        path: of the file to write; None for one that is called like the data.
        data: file, folder, URL or hub name.
        task: what is to be learned; None to tell by the columns.
        model: name or folder; None for a small public one.

    Raises:
        ValueError: if the data cannot be read or told, or the file is there.
    """
    console = speaker()
    free(path, name := f"{_stem(data)}.yaml")
    with busy(console, "looking at the data"):
        source, reading = _opened(data)
        found = guess(source, task)
        made = Draft(path=data, found=found, reading=reading, model=model)
        if not open_questions(made):
            made = _counted(made)
    target = write(path, name, drafted(made))
    say(console, f"wrote {target}. It was guessed that:")
    for line in _told(found, source, made):
        say(console, f"  {line}")
    if questions := open_questions(made):
        say(console, "To be answered in the file, before it runs:")
        for line in questions:
            say(console, f"  {line}")
    say(console, "Every guess is explained in the file. Next:")
    say_next(console, target)


def _opened(data: str) -> tuple[Source, dict[str, str]]:
    """The data, and how they have to be read for it."""
    reading: dict[str, Any] = {}
    for _ in range(MOST_ANSWERS):
        try:
            return load(data, files=FileOptions(**reading)), reading
        except UnreadableError as error:
            if not error.answers.keys() - reading.keys():
                raise
            reading |= error.answers
    raise AssertionError("each answer is given once")


def _counted(made: Draft) -> Draft:
    """With training records by silo, and their tokens where the tokenizer is on this machine.

    They are read as a run reads them.
    """
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "draft.yaml"
        file.write_text(drafted(made), encoding="utf-8")
        federation = build(load_config(file))
    prepared = read_tables(federation.terms, federation.records)
    tables = {name: silo.train for name, silo in prepared.silos.items()}
    made = replace(made, sizes={name: len(table) for name, table in tables.items()})
    texts = find(made.found.task).reads == "text"
    tokenizer = tokenizer_at_hand(federation.terms.model) if texts else None
    if tokenizer is None or not tokenizer.is_fast:
        return made
    longest = min(tokenizer.model_max_length, made.longest)
    second = second_row(federation.terms.objective)
    return replace(made, tokens=_tokens(tables, tokenizer, second), longest=longest)


def _tokens(tables: Mapping[str, Dataset], tokenizer: Any, second: SecondRow | None) -> int | None:
    """Of all but the longest twentieth of the records, the most."""
    each = max(LOOKED_AT // len(tables), 1)
    some = {name: table.select(range(min(len(table), each))) for name, table in tables.items()}
    lengths = [
        n
        for name, table in some.items()
        for n in whole_lengths(table, tokenizer, f"silo {name}", second)
    ]
    return int(np.quantile(lengths, 0.95, method="inverted_cdf")) if lengths else None


def _told(found: Guess, source: Source, made: Draft) -> list[str]:
    columns = ", ".join(f"{part} is {column!r}" for part, column in found.columns.items())
    silos = len(made.sizes or source.silos)
    if found.by:  # they are counted where all that is asked is answered
        some = count_text(silos, "silo") if silos else "silos"
        whose = f"{some}, named by the column {found.by!r}"
    elif source.silos:
        whose = f"{count_text(silos, 'silo')}, as the folder has them"
    else:
        whose = "no column was recognised to name silos: records are dealt out to 3 (a simulation)"
    count = len(found.labels)
    labels = [f"{count_text(count, 'label')}, which the file makes public"] if count else []
    reading = [f"{key} {value!r}" for key, value in made.reading.items()]
    notices = [in_keys(notice) for notice in source.notices]
    unused = filter(None, [unused_columns(made)])
    task = f"task {found.task}: {columns or 'no column'}"
    return [task, *unused, whose, *labels, *reading, *notices]


def _stem(data: str) -> str:
    """What a file about these data is called."""
    name = data.rstrip("/").rpartition("/")[2].rpartition(":")[2]
    return name.partition(".")[0] or "mine"
