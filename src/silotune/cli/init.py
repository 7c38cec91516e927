"""``init``: a bundled configuration, copied."""

from __future__ import annotations

from pathlib import Path

import typer

from silotune.config import bundled
from silotune.core.files import in_words

from .console import say, speaker


def start(path: Path | None, example: str) -> None:
    """Copy, and say what to do next; a file that is there stays as it is.

    Raises:
        ValueError: if the file is there.
    """
    texts = bundled()
    if example not in texts:
        raise typer.BadParameter(
            f"{example} is none of: {', '.join(texts)}", param_hint="--example"
        )
    target = path or Path(f"{example}.yaml")
    if target.is_dir():
        target = target / f"{example}.yaml"
    if target.exists():
        raise ValueError(f"{target}: exists already, and is left as it is; give another name")
    with in_words(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(texts[example], encoding="utf-8")
    console = speaker()
    say(console, f"wrote {target}: every key is explained there. Next:")
    for command, use in (
        ("doctor", "is everything here that it needs?"),
        ("plan", "what will it cost? nothing trains"),
        ("run", "train"),
    ):
        say(console, f"  {f'silotune {command} {target}':<34} {use}")
