"""Personal tensors: what a client trains and never sends. They lie in its own folder.

Each round writes a file of its own, and the one before is kept: a round that is asked for again
begins from where it began the first time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from silotune.core import Factors, RecordError, Task, pack, unpack, write_bytes
from silotune.core.files import in_words

_FOLDER, _SUFFIX = "personal", ".safetensors"


def keep(home: Path, task: Task, tensors: Factors) -> None:
    """Write what the task's round made of the personal tensors.

    Raises:
        RecordError: if the disk is full or the place cannot be written.
    """
    folder = home / _FOLDER
    with in_words(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / f"{task.round}{_SUFFIX}", pack(tensors, {"run": task.run}))
    for round, path in _files(folder):
        if round < task.round - 1:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


def kept(home: Path, task: Task) -> Factors:
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
    rounds = dict(_rounds(home / _FOLDER, run))
    earlier = [round for round in rounds if round < before]
    if earlier:
        return rounds[max(earlier)]
    if any(round > before for round in rounds):
        raise RecordError(
            f"{home / _FOLDER}: what round {before} began from has been replaced by later rounds; "
            "begin a new run"
        )
    return Factors({})


def _rounds(folder: Path, run: str) -> Iterator[tuple[int, Factors]]:
    for round, path in _files(folder):
        try:
            tensors, header = unpack(path.read_bytes())
        except ValueError as error:
            raise RecordError(f"{path}: {error}") from error
        if header["run"] == run:
            yield round, tensors


def _files(folder: Path) -> Iterator[tuple[int, Path]]:
    for path in folder.glob(f"*{_SUFFIX}"):
        if path.stem.isdigit():
            yield int(path.stem), path
