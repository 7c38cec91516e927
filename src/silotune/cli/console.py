"""Where words go: to people through rich, to scripts as one line of JSON on stdout."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

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
    print(json.dumps(_finite(value), ensure_ascii=False, allow_nan=False), flush=True)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
