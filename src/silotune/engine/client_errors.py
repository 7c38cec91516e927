"""What a silo says when it does not do as it is asked: that it does not, and never why.

The text of an error may hold a record, a count or a loss, and a mechanism covers none of that. So
where records are hidden an error ends here: its traceback goes into the silo's own folder, and
only a sentence that is the same for all errors leaves. There is no way to have the text sent, in a
simulation neither: whoever owns all silos can read their folders. The log of the process that acts
for the silo, which goes to the terminal on the user's own machine, has the kind of the error and
what the operating system says of it; neither is of a record.

That a silo failed, and when, is an event that everybody sees; epsilon does not cover it.
"""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from silotune.core import ClientTask, ClientUpdate, RecordError, append_line

_LOG = logging.getLogger(__name__)

ERRORS = "errors.jsonl"
"""In a silo's folder: one line an error."""

FAILED = f"it refused or failed; the reason stays at the silo, in {ERRORS}"
"""All that is said of an error, or of an order that was not agreed."""

SPENT = "its budget is spent"
"""All that is said of a budget: how large it is may be the policy of a site."""

BROKE_DOWN = f"its training broke down; the reason stays at the silo, in {ERRORS}"
"""All that is said of training that went beyond the numbers of a computer, without privacy too."""

OF_A_SILO = (FAILED, SPENT, BROKE_DOWN)
"""All that a silo says for itself. Words of its own could be of a record, or move a cursor."""


def result(
    task: ClientTask, sealed: bytes = b"", *, refusal: str = "", resent: bool = False
) -> ClientUpdate:
    """A result for a task, without meters."""
    return ClientUpdate(
        run=task.run,
        round=task.round,
        client=task.client,
        sealed=sealed,
        refusal=refusal,
        resent=resent,
    )


def over_budget(task: ClientTask) -> ClientUpdate:
    """The refusal of a client whose budget cannot pay."""
    return result(task, refusal=SPENT)


def discreet(task: ClientTask, home: Path, work: Callable[[], ClientUpdate]) -> ClientUpdate:
    """What ``work`` gives; the public refusal if it raises anything that a process survives."""
    try:
        return work()
    except Exception as error:
        return failed(task, home, error)


def failed(task: ClientTask, home: Path, error: Exception) -> ClientUpdate:
    """The public refusal of a client whose work raised ``error``, which is handled now."""
    more = f"more is in {home / ERRORS}"
    try:
        _note(task, home)
    except RecordError as full:
        more = f"and more could not be written down ({in_public(full)})"
    _LOG.error("%s, round %s: %s; %s", task.client, task.round, in_public(error), more)
    return result(task, refusal=FAILED)


def broken_down(task: ClientTask, home: Path | None) -> ClientUpdate:
    """The refusal of a client whose training raised what is handled now.

    Args:
        task: that was trained.
        home: takes the reason; None if the client has no folder, and then only the log has it.
    """
    _LOG.error("%s, round %s: %s", task.client, task.round, BROKE_DOWN, exc_info=home is None)
    if home is not None:
        _note(task, home)
    return result(task, refusal=BROKE_DOWN)


def in_public(error: BaseException) -> str:
    """What of an error is not of a record: its class, and the words of the operating system."""
    cause = error.__cause__ if isinstance(error, RecordError) else error
    if isinstance(cause, OSError) and cause.errno is not None:
        return os.strerror(cause.errno)
    return type(error).__name__


def _note(task: ClientTask, home: Path) -> None:
    append_line(
        home / ERRORS,
        {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "run": task.run,
            "round": task.round,
            "error": traceback.format_exc(),
        },
    )
