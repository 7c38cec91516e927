"""``doctor``: findings, one line each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import typer
from rich.text import Text

from silotune.config import ConfigError, build, in_keys, notices
from silotune.federation.doctor import Check, configuration, environment

from .config_source import chosen
from .console import emit, say, speaker
from .errors import ERROR

OPEN_ENGINES = {
    "flower": "whoever reaches Flower's SuperLink, with nothing but the public certificate of its "
    "authority, can run code on its machine and at every SuperNode; they cannot forge an order or "
    "an answer, which are signed. Let the network reach no more of it than /v1/fleet/, and "
    "run each SuperNode as a user that can read nothing of the site",
    "ray": "every member of a Ray cluster can run code on all others; use it on machines of one "
    "owner",
}
"""What a runtime gives up, by its name."""


def examine(name: str | None, overrides: Sequence[str], *, as_json: bool) -> None:
    """Show every finding; exit 1 if a run would not work."""
    console, checks = speaker(as_json=as_json), []
    for finding in _findings(name, overrides):
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


def _in_keys(finding: Check) -> Check:
    """A finding in the words of the file format."""
    named = "train.device" if finding.what == "device" else finding.what
    return replace(finding, what=named, text=in_keys(finding.text))


def _findings(name: str | None, overrides: Sequence[str]) -> Iterator[Check]:
    yield from environment()
    if name is None:
        return
    try:
        config = chosen(name, overrides)
        federation = build(config)
    except ConfigError as error:
        yield from (Check(what="configuration", ok=False, text=p) for p in error.problems)
        return
    remarks = "; ".join(notices(config))
    yield Check(what="configuration", ok=True, text=f"valid; {remarks}" if remarks else "valid")
    if config.runtime in OPEN_ENGINES:
        yield Check(what="runtime", ok=True, text=OPEN_ENGINES[config.runtime])
    yield from map(_in_keys, configuration(federation, Path(config.output_dir)))
