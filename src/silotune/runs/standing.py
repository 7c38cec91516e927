"""Standing: how a run stands, by what its folder says and by who has it."""

from __future__ import annotations

from silotune.core.locks import is_locked

from .facts import RunFacts
from .folder import RunFolder

CUT_SHORT = "cut short; continue it with --resume (resume=True)"


def standing(folder: RunFolder, facts: RunFacts) -> str:
    """Its status; of one that says it runs while no process has the folder, that it was cut short.

    A run that was killed, or that met a full disk, could not say so itself.
    """
    if facts.status == "running" and not is_locked(folder.lock):
        return CUT_SHORT
    return facts.status
