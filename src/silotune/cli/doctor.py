"""``doctor``: findings, one line each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain

import typer
from rich.text import Text

from silotune.federation.environment import environment

from .console import emit, say, speaker
from .errors import ERROR


def examine(name: str | None, overrides: Sequence[str], *, as_json: bool) -> None:
    """Show every finding; exit 1 if a run would not work."""
    console, checks, findings = speaker(as_json=as_json), [], environment()
    if name is not None:
        from .doctor_of_config import of_config

        findings = chain(findings, of_config(name, overrides))
    for finding in findings:
        checks.append(finding)
        word, style = ("ok     ", "green") if finding.ok else ("problem", "bold red")
        line = Text.assemble((word, style), f"  {finding.what}: {finding.text}")
        console.print(line, soft_wrap=True)
    problems = sum(not finding.ok for finding in checks)
    say(console, f"{problems or 'no'} problem{'' if problems == 1 else 's'}")
    if as_json:
        emit({"ok": not problems, "findings": [asdict(finding) for finding in checks]})
    if problems:
        raise typer.Exit(ERROR)
