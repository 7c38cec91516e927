"""Personal tensors: what a client trains and never sends. They lie in its own folder."""

from __future__ import annotations

from pathlib import Path

from silotune.core import ClientTask, Factors, RecordError, pack, unpack

from .kept_rounds import KeptRounds


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
    _of(home, task.run).draft(task.round, attempt, pack(tensors, {}))


def accept(home: Path, task: ClientTask, attempt: str) -> None:
    """Let later rounds begin from a draft, if there is one; what no round needs any more goes.

    Raises:
        RecordError: if the place cannot be written.
    """
    _of(home, task.run).accept(task.round, attempt)


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
    found = _of(home, run).before(before)
    if found is None:
        return Factors({})
    _, path = found
    try:
        tensors, _ = unpack(path.read_bytes())
    except ValueError as error:
        raise RecordError(f"{path}: {error}") from error
    return tensors


def _of(home: Path, run: str) -> KeptRounds:
    return KeptRounds(home / "personal" / run)
