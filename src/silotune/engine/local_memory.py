"""What a client's optimiser remembers from round to round, where that is carried.

It lies in the client's own folder and never leaves it. Under privacy it is made of clipped and
noised gradients of rounds that were paid for, so what begins from it costs nothing more.
"""

from __future__ import annotations

from pathlib import Path

from silotune.core import ClientTask, RecordError, pack, unpack
from silotune.optim.memory import Memory, apart, together

from .kept_rounds import KeptRounds


def draft(home: Path, task: ClientTask, attempt: str, memory: Memory) -> None:
    """Write what an attempt at the task's round left in the optimiser.

    Raises:
        RecordError: if the disk is full or the place cannot be written.
    """
    tensors, numbers = apart(memory)
    _of(home, task.run).draft(task.round, attempt, pack(tensors, {"numbers": numbers}))


def accept(home: Path, task: ClientTask, attempt: str) -> None:
    """Let later rounds begin from a draft, if there is one.

    Raises:
        RecordError: if the place cannot be written.
    """
    _of(home, task.run).accept(task.round, attempt)


def kept(home: Path, task: ClientTask) -> Memory:
    """What the optimiser begins the task's round with; empty if nothing of before counts any more.

    Raises:
        RecordError: if the file is torn, or what the round began from is there no more.
    """
    found = _of(home, task.run).before(task.round)
    if found is None or task.remembers_since is None or found[0] < task.remembers_since:
        return {}
    _, path = found
    try:
        tensors, header = unpack(path.read_bytes())
        return together(tensors, header["numbers"])
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"{path}: {error}") from error


def _of(home: Path, run: str) -> KeptRounds:
    return KeptRounds(home / "optimizer" / run)
