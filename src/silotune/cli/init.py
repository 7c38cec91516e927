"""``init``: a configuration to begin with, copied; nothing slow is imported for it."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console

from .console import say, speaker
from .templates import bundled


def start(path: Path | None, example: str) -> None:
    """Copy, and say what to do next; a file that is there stays as it is.

    Raises:
        ValueError: if the file is there.
    """
    files = bundled()
    if example not in files:
        raise typer.BadParameter(
            f"{example} is none of: {', '.join(files)}", param_hint="--example"
        )
    target = write(path, f"{example}.yaml", files[example].read_text(encoding="utf-8"))
    console = speaker()
    say(console, f"wrote {target}: every key is explained there. Next:")
    say_next(console, target)


def free(path: Path | None, name: str) -> Path:
    """Where to write.

    Raises:
        ValueError: if something is there.
    """
    target = path or Path(name)
    if target.is_dir():
        target = target / name
    if target.exists():
        raise ValueError(f"{target}: exists already, and is left as it is; give another name")
    return target


def write(path: Path | None, name: str, text: str) -> Path:
    """Into a new file, which is given; errors as ``free``."""
    target = free(path, name)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    return target


def say_next(console: Console, target: Path) -> None:
    """What to do with the file."""
    for command, use in (
        ("doctor", "is everything here that it needs?"),
        ("plan", "what will it cost? nothing trains"),
        ("run", "train"),
    ):
        say(console, f"  {f'silotune {command} {target}':<34} {use}")
