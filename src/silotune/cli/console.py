"""Where words go: to people through rich, to scripts as one line of JSON on stdout."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console

PIPED = 200
"""Columns where there is no terminal, so that no table is cut."""


def speaker(*, as_json: bool = False) -> Console:
    """For people: stdout, or stderr where stdout belongs to a script."""
    console = Console(stderr=as_json, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = PIPED
    return console


def say(console: Console, text: str = "", style: str | None = None) -> None:
    """One line, never broken by us."""
    console.print(text, style=style, soft_wrap=True)


def busy(console: Console, text: str) -> AbstractContextManager[object]:
    """A spinner, where there is a terminal."""
    return console.status(text) if console.is_terminal else nullcontext()


def emit(value: object) -> None:
    """One line of JSON; numbers that are not finite are null."""
    from silotune.core.files import finite

    print(json.dumps(finite(value), ensure_ascii=False, allow_nan=False), flush=True)
