"""What a silo says when something goes wrong: that it did, and never why.

The text of an error may hold a record, a count or a loss, and a mechanism covers none of that. So
where records are hidden an error ends here: its traceback goes into the silo's own folder, and
only a sentence that is the same for all errors leaves. There is no way to have the text sent, in a
simulation neither: whoever owns all silos can read their folders.

That a silo failed, and when, is an event that everybody sees; epsilon does not cover it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from silotune.core import ClientTask, ClientUpdate, RecordError, append_line
from silotune.privacy.lifetime.budget import OVER_LIFE, CeilingReached

from .participants import Client

ERRORS = "errors.jsonl"
"""In a silo's folder: one line an error."""

FAILED = f"it failed; the reason stays at the silo, in {ERRORS}"
"""All that is said of an error."""


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


def over_budget(task: ClientTask, client: Client) -> ClientUpdate:
    """The refusal of a client whose budget cannot pay."""
    assert client.budget is not None
    return result(task, refusal=f"its budget of epsilon {client.budget.epsilon:g} is spent")


def discreet(task: ClientTask, home: Path, work: Callable[[], ClientUpdate]) -> ClientUpdate:
    """What ``work`` gives; the public refusal if it raises anything that a process survives."""
    try:
        return work()
    except CeilingReached:
        return result(task, refusal=f"its records {OVER_LIFE}")
    except Exception:
        with suppress(RecordError):  # on a full disk the reason is lost, not told
            _note(task, home)
        return result(task, refusal=FAILED)


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
