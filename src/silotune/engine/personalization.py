"""Personal tensors: what a client trains and never sends. They lie in its own folder.

What a round made of them counts once the round is paid for: it is drafted before the charge and
accepted after it, so that no later round begins from steps that no ledger holds. The newest ones
from before the last accepted round are kept: a round that is asked for again begins from where it
began the first time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from silotune.core import ClientTask, Factors, RecordError, pack, unpack, write_bytes
from silotune.core.files import in_words

_FOLDER, _SUFFIX, _DRAFT = "personal", ".safetensors", ".draft"


def draft(home: Path, task: ClientTask, attempt: str, tensors: Factors) -> None:
    """Write what an attempt at the task's round made of the personal tensors.

    Args:
        home: the client's folder.
        task: of the round.
        attempt: tells attempts at the same round apart.
        tensors: as they are at its end.

    Raises:
        RecordError: if the disk is full or the place cannot be written.
    """
    folder = _folder(home, task.run)
    with in_words(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / _name(task, attempt), pack(tensors, {}))


def accept(home: Path, task: ClientTask, attempt: str) -> None:
    """Let later rounds begin from a draft, if there is one; what no round needs any more goes.

    Raises:
        RecordError: if the place cannot be written.
    """
    folder = _folder(home, task.run)
    with in_words(folder), contextlib.suppress(FileNotFoundError):
        (folder / _name(task, attempt)).replace(folder / f"{task.round}{_SUFFIX}")
    earlier = [round for round, _ in _files(folder) if round < task.round]
    for round, path in _files(folder):
        if round < max(earlier, default=0):
            path.unlink(missing_ok=True)


def kept(home: Path, task: ClientTask) -> Factors:
    """The personal tensors as they were before the task's round; empty if it is the first.

    Raises:
        RecordError: if a file is torn, or what the round began from is there no more.
    """
    return personal(home, task.run, before=task.round)


def personal(home: Path, run: str, before: int) -> Factors:
    """The last personal tensors of ``run`` from before round ``before``; empty if there are none.

    Raises:
        RecordError: if a file is torn, or they have been replaced by those of later rounds.
    """
    rounds = dict(_files(_folder(home, run)))
    earlier = [round for round in rounds if round < before]
    if not earlier and any(round > before for round in rounds):
        raise RecordError(
            f"{home / _FOLDER}: what round {before} began from has been replaced by later rounds; "
            "begin a new run"
        )
    if not earlier:
        return Factors({})
    path = rounds[max(earlier)]
    try:
        tensors, _ = unpack(path.read_bytes())
    except ValueError as error:
        raise RecordError(f"{path}: {error}") from error
    return tensors


def _folder(home: Path, run: str) -> Path:
    return home / _FOLDER / run


def _name(task: ClientTask, attempt: str) -> str:
    return f"{task.round}.{attempt}{_DRAFT}"


def _files(folder: Path) -> Iterator[tuple[int, Path]]:
    for path in folder.glob(f"*{_SUFFIX}"):
        if path.stem.isdigit():
            yield int(path.stem), path
