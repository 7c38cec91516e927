"""Keeping: a checkpoint holds what the other files of its run say, so that a lost one is no loss.

With its checkpoint a run has begun. Whatever else is missing, or is not what one of us wrote, is
written again when the run is resumed; what was there is moved aside, and nothing is deleted.
Readers name the file and leave it as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from silotune.adapters import check_saved
from silotune.core.files import (
    DamagedError,
    append_bytes,
    in_words,
    json_text,
    read_json,
    write_lines,
    write_text,
)
from silotune.engine.checkpoint import CURE, Checkpoint
from silotune.engine.checkpoint import load as load_checkpoint
from silotune.runs.facts import RunFacts, facts_in
from silotune.runs.folder import RoundRecord, RunFolder, rounds_in
from silotune.runs.lock import held
from silotune.runs.privacy_statement import read_certificate

from .adapter_folder import read_made
from .description import Description
from .identity import NoIdentityError, decisive, digest_of, whole
from .results import own_adapters, shared_adapter


def kept(facts: RunFacts, federation: Description, config: str | None) -> dict[str, str]:
    """The texts of the files beside a checkpoint that it keeps, by their names.

    Args:
        facts: for ``run.json``.
        federation: for ``federation.json``, if a file can hold it.
        config: the text of ``config.yaml``, if there is one.
    """
    found = {"run.json": json_text(facts.to_json())}
    if config is not None:
        found["config.yaml"] = config
    with suppress(NoIdentityError):
        found["federation.json"] = json_text(whole(federation))
    return found


def write_kept(folder: RunFolder, keep: Mapping[str, str]) -> None:
    """Write the files that a checkpoint keeps, ``run.json`` last.

    Raises:
        RecordError: if one cannot be written.
    """
    for path in (folder.config, folder.description, folder.run):
        if path.name in keep:
            write_text(path, keep[path.name])


def append_round(folder: RunFolder, record: RoundRecord) -> None:
    """Add a round to ``metrics.jsonl`` and to its copy; both are on the disk when this returns.

    Raises:
        RecordError: if it cannot be written; the rounds before it are intact.
    """
    append_bytes(folder.history, folder.append_round(record))


def truncate_rounds(folder: RunFolder, done: int) -> None:
    """Keep the rounds that are behind the checkpoint; before the first none, as all begins anew.

    Raises:
        RecordError: if a file cannot be rewritten; it is then as it was.
    """
    records = [record.to_json() for record in rounds_behind(folder.metrics, done)]
    write_lines(folder.metrics, records)
    write_lines(folder.history, records)


def mend(folder: RunFolder) -> list[str]:
    """``restored``, where a run has begun and nobody else has the folder.

    Returns:
        What was written again.

    Raises:
        ValueError: as ``restored``; or if a run is going on there.
    """
    if not folder.state.is_file():
        return []
    with held(folder):
        return restored(folder)[1]


def restored(folder: RunFolder) -> tuple[Checkpoint, list[str]]:
    """The checkpoint, once all that it needs beside it is whole; and what was written again.

    Raises:
        ValueError: naming what is missing or damaged and cannot be written again.
    """
    saved = load_checkpoint(folder.state)
    told = [*_kept_files(folder, saved), *_rounds(folder, saved), *_statement(folder)]
    return saved, told


def is_whole(folder: RunFolder, rounds: int, *, described: bool) -> bool:
    """Whether a finished run has its page, its rounds and its adapters, and they can be read.

    Args:
        folder: of the run.
        rounds: that it has done.
        described: whether a file can hold how its models were made.
    """
    try:
        rounds_behind(folder.metrics, rounds)
        for place in own_adapters(folder).values() or [shared_adapter(folder)]:
            check_saved(place)
            if described:
                read_made(place)
    except ValueError:
        return False
    return folder.privacy.is_file() and _is_page(folder.report)


def _is_page(path: Path) -> bool:
    """Whether it has a beginning and an end, both as text."""
    try:
        page = _text(path).strip().lower()
    except ValueError:
        return False
    return page.startswith("<!doctype html") and page.endswith("</html>")


def rounds_behind(path: Path, done: int) -> list[RoundRecord]:
    """The rounds behind a checkpoint.

    Args:
        path: ``metrics.jsonl``, or its copy.
        done: how many there are, but for what was before training; none need be there at 0.

    Raises:
        DamagedError: if one is damaged, missing or there twice.
    """
    records = rounds_in(path)
    found, due = [record.round for record in records[: done + 1]], list(range(-1, done))
    if done and found != due:
        have = ", ".join(str(record.round) for record in records) or "none"
        raise DamagedError(f"{path}: has the rounds {have}; the checkpoint is of after {done}")
    return records[: done + 1] if done else []


def _kept_files(folder: RunFolder, saved: Checkpoint) -> Iterator[str]:
    def config(path: Path) -> None:
        text = _text(path).strip()
        if saved.kept[path.name].startswith(text) and text != saved.kept[path.name].strip():
            raise DamagedError(f"{path}: is cut short")

    def description(path: Path) -> None:
        if digest_of(decisive(read_json(path))) != saved.config:
            raise DamagedError(f"{path}: damaged, this is not the federation of the checkpoint")

    def facts(path: Path) -> None:
        facts_in(path)

    checks: dict[Path, Callable[[Path], None]] = {
        folder.config: config,
        folder.description: description,
        folder.run: facts,
    }
    for path, check in checks.items():
        try:
            if path == folder.run or path.name in saved.kept:
                check(path)
        except DamagedError as error:
            if path.name not in saved.kept:
                raise DamagedError(f"{error}; the checkpoint does not have it: {CURE}") from error
            _move_aside(path)
            write_text(path, saved.kept[path.name])
            yield f"{error}; it was written again from the checkpoint"


def _rounds(folder: RunFolder, saved: Checkpoint) -> Iterator[str]:
    done = saved.state.round
    try:
        rounds_behind(folder.metrics, done)
    except DamagedError as error:
        try:
            rounds_behind(folder.history, done)
        except DamagedError as other:
            raise DamagedError(f"{error}; nor is its copy whole: {other}; {CURE}") from error
        _move_aside(folder.metrics)
        folder.write_rounds(rounds_in(folder.history))
        yield f"{error}; it was written again from its copy beside the checkpoint"


def _statement(folder: RunFolder) -> Iterator[str]:
    """The certificate is made from the ledgers in every round."""
    try:
        if folder.privacy.exists():
            read_certificate(folder.privacy, typed=True)
    except DamagedError as error:
        _move_aside(folder.privacy)
        yield f"{error}; it is written again from the ledgers"


def _text(path: Path) -> str:
    if not path.is_file():
        raise DamagedError(f"{path}: is missing")
    with in_words(path):
        text = path.read_bytes()
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise DamagedError(f"{path}: damaged, this is no text") from error


def _move_aside(path: Path) -> None:
    """Nothing that was there is deleted: what cannot be read may still help somebody."""
    number, aside = 1, path.with_name(f"{path.name}.damaged")
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{number}")
    if path.exists():
        with in_words(path):
            path.rename(aside)
