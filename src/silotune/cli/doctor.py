"""``doctor``: findings, one line each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import typer
from rich.text import Text

from silotune.config import ConfigError, notices
from silotune.federation.doctor import Check, configuration, environment

from .config_source import chosen
from .console import emit, say, speaker
from .errors import ERROR


def examine(name: str | None, overrides: Sequence[str], *, as_json: bool) -> None:
    """Show every finding; exit 1 if a run would not work."""
    console, found = speaker(as_json=as_json), []
    for finding in _findings(name, overrides):
        found.append(finding)
        word, style = ("ok     ", "green") if finding.ok else ("problem", "bold red")
        line = Text.assemble((word, style), f"  {finding.what}: {finding.text}")
        console.print(line, soft_wrap=True)
    problems = sum(not finding.ok for finding in found)
    say(console, f"{problems or 'no'} problem{'' if problems == 1 else 's'}")
    if as_json:
        emit({"ok": not problems, "findings": [asdict(finding) for finding in found]})
    if problems:
        raise typer.Exit(ERROR)


def _findings(name: str | None, overrides: Sequence[str]) -> Iterator[Check]:
    yield from environment()
    if name is None:
        return
    try:
        config = chosen(name, overrides)
    except ConfigError as error:
        yield from (Check(what="configuration", ok=False, text=p) for p in error.problems)
        return
    said = "; ".join(notices(config))
    yield Check(what="configuration", ok=True, text=f"valid; {said}" if said else "valid")
    yield from configuration(config)
