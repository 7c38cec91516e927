"""``predict`` and ``generate``: the result of a run, asked about the records of a file."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from rich.console import Console
from rich.progress import track

from silotune.config.fields import in_keys
from silotune.core.units import count_text
from silotune.data.files import read_bytes, read_file
from silotune.data.formats import FileOptions
from silotune.data.messages import UnreadableError
from silotune.data.writing import STANDARD, check_holds, check_new, json_lines, write_table
from silotune.federation.load import load
from silotune.federation.questions import asked_columns, questions, spoken
from silotune.objectives.answers import cells

from .console import busy, say, speaker
from .errors import note

if TYPE_CHECKING:
    from silotune.federation.loaded_model import LoadedModel

GENERATED = "generated"
"""The column of what was written."""


@dataclass(frozen=True, kw_only=True)
class Files:
    """What is read and written.

    Attributes:
        source: the file of records; ``-`` is standard input, in jsonl.
        target: the file to write; ``-`` is standard output, in jsonl.
        overwrite: whether a file that is there may be replaced.
        options: how the source is read.
    """

    source: str
    target: str
    overwrite: bool
    options: FileOptions


@dataclass(frozen=True, kw_only=True)
class Writing:
    """How a language model goes on.

    Attributes:
        max_new_tokens: of each text at most.
        temperature: 0 takes the most probable token each time.
        seed: of what is drawn at other temperatures.
    """

    max_new_tokens: int
    temperature: float
    seed: int


def predict_file(path: Path, files: Files, silo: str | None, batch_size: int) -> None:
    """Write a file's records with what a model says of each.

    Raises:
        ValueError: in words, before anything is written.
    """
    console, table = _begun(files)
    model = _opened(console, path, silo)
    asked = _asked(model, table, files)
    names = model.columns(asked[0])
    _check_free(names, table)
    answers = model.answers(asked, batch_size=batch_size, where=files.source, tell=_tell)
    said = map(cells, _tracked(console, answers, len(asked)))
    _write(console, table, _columns(names, said), files)


def generate_file(path: Path, files: Files, silo: str | None, how: Writing) -> None:
    """Write a file's records with what a model writes after each.

    Raises:
        ValueError: in words, before anything is written.
    """
    console, table = _begun(files)
    _check_free([GENERATED], table)
    model = _opened(console, path, silo)
    asked = _asked(model, table, files)
    texts = _tracked(console, _written(model, asked, how), len(asked))
    _write(console, table, {GENERATED: [*texts]}, files)


def generate_here(path: Path, prompts: Sequence[str], silo: str | None, how: Writing) -> None:
    """Print what a model writes after each prompt.

    Raises:
        ValueError: in words.
    """
    model = _opened(speaker(as_json=True), path, silo)
    asked = [spoken(model.objective, prompt) for prompt in prompts]
    for text in _written(model, asked, how):
        print(text, flush=True)


def _begun(files: Files) -> tuple[Console, pa.Table]:
    """What is read, once it is known that it can be written too."""
    check_new(files.target, overwrite=files.overwrite)
    table = _read(files)
    check_holds(table, files.target)
    return speaker(as_json=files.target == STANDARD), table


def _opened(console: Console, path: Path, silo: str | None) -> LoadedModel:
    with busy(console, "opening the model"):
        return load(path, client=silo)


def _read(files: Files) -> pa.Table:
    """The source as it is.

    Raises:
        ValueError: naming the option by which it can be read.
    """
    try:
        if files.source == STANDARD:
            read = read_bytes("-.jsonl", sys.stdin.buffer.read(), files.options)
        else:
            read = read_file(Path(files.source), files.options)
    except UnreadableError as error:
        field = "input" if error.field == "clients" else error.field
        raise ValueError(f"--{field}:{str(error).partition(':')[2]}") from None
    except ValueError as error:
        raise ValueError(f"--input:{str(error).partition(':')[2]}") from None
    if not len(read):
        raise ValueError(f"--input: {files.source} holds no records")
    return read.with_format("arrow")[:]


def _asked(model: LoadedModel, table: pa.Table, files: Files) -> list[Any]:
    """What the model is asked of each record.

    Raises:
        ValueError: naming a column that is missing, or a row that holds nothing.
    """
    columns = asked_columns(model.objective, table.column_names)
    missing = [c for c in columns.values() if c not in table.column_names]
    if missing:
        there = ", ".join(table.column_names)
        raise ValueError(
            f"--input: {files.source} has no column {missing[0]!r}, which the model reads; it has "
            f"{there}"
        )
    rows = table.select([*columns.values()]).to_pylist()
    if "image" in columns and files.source != STANDARD:
        rows = [_anchored(row, columns["image"], Path(files.source).parent) for row in rows]
    return questions(model.objective, rows, files.source)


def _anchored(row: dict[str, Any], column: str, folder: Path) -> dict[str, Any]:
    """Paths of images are relative to their file."""
    cell = row[column]
    return {**row, column: folder / cell} if isinstance(cell, str | PurePath) else row


def _written(model: LoadedModel, asked: Sequence[Any], how: Writing) -> Iterator[str]:
    return model.continuations(
        asked,
        max_new_tokens=how.max_new_tokens,
        temperature=how.temperature,
        seed=how.seed,
        tell=_tell,
    )


def _tell(notice: str) -> None:
    note(in_keys(notice))


def _tracked(console: Console, answers: Iterator[Any], total: int) -> Iterator[Any]:
    """With a bar, where there is a terminal."""
    if not console.is_terminal:
        return answers
    return iter(track(answers, "records", total, console=console, transient=True))


def _columns(names: Iterable[str], said: Iterator[dict[str, Any]]) -> dict[str, list[Any]]:
    """What is said of each record, by column."""
    every = [*said]
    return {name: [one[name] for one in every] for name in names}


def _check_free(names: Iterable[str], table: pa.Table) -> None:
    if taken := [name for name in names if name in table.column_names]:
        raise ValueError(
            f"--input: the records have a column {taken[0]!r} already, which would be written; "
            "rename it, or leave it out"
        )


def _write(console: Console, table: pa.Table, found: dict[str, list[Any]], files: Files) -> None:
    for name, column in found.items():
        table = table.append_column(name, pa.array(column))
    if files.target == STANDARD:
        sys.stdout.write(json_lines(table).decode())
        sys.stdout.flush()
        return
    write_table(table, Path(files.target), overwrite=files.overwrite)
    say(console, f"wrote {files.target}: {len(table):,} records, with {_listed(found)}")


def _listed(names: dict[str, list[Any]]) -> str:
    first, *others = names
    return f"{first} and {count_text(len(others), 'more column')}" if others else first
