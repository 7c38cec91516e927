"""``export``: the adapter of a run, or a whole model, written where another program can load it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from silotune.adapters import Estimate
from silotune.adapters.merge_error import MergeError
from silotune.federation.export import export_merged, export_peft
from silotune.runs.folder import RunFolder

from .config_source import of_run
from .console import busy, say, speaker


def export_run(
    path: Path,
    kind: Literal["peft", "merged"],
    output: Path,
    silo: str | None,
    approximate: str | None,
) -> None:
    """Write an adapter or a whole model: the one that all silos share, or a silo's own.

    Raises:
        ValueError: in words.
    """
    if kind == "peft" and approximate:
        raise ValueError("--approximate: an adapter is not merged; take --format merged with it")
    estimate = Estimate(approximate) if approximate else None
    console, folder = speaker(), RunFolder(path)
    error: MergeError | None = None
    compared = ""
    with busy(console, "writing"):
        if kind == "peft":
            compared = export_peft(folder, output, silo)
        else:
            error = export_merged(of_run(folder), folder, output, silo, approximate=estimate)
    if error is not None:
        say(console, str(error), style="yellow" if error.is_notable else None)
    if compared:
        say(console, compared)
    say(console, f"wrote {output}; its README.md says how to load it")
