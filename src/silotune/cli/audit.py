"""``audit``: what was attacked, part by part, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import typer
from rich.console import Console
from rich.text import Text

from silotune.audit.step import Verdict
from silotune.config import settle
from silotune.core.units import epsilon_text, number_text
from silotune.federation.audit import audit, conclusion
from silotune.federation.audit_effort import SHORT, THOROUGH
from silotune.federation.audit_part import Part
from silotune.federation.audit_subject import Subject, of_federation, of_run
from silotune.federation.workers import audit_worker
from silotune.runs.folder import RunFolder

from .config_source import chosen
from .config_source import of_run as federation_of_run
from .console import busy, emit, say, speaker
from .errors import ERROR

STYLES = {Verdict.PASS: "green", Verdict.FAIL: "bold red", Verdict.NO_POWER: "bold yellow"}

MEANING = {
    Verdict.PASS: "no attack got beyond what is claimed, and a fault would have shown",
    Verdict.FAIL: "this is not what is claimed; do not train with it",
    Verdict.NO_POWER: "no attack got beyond what is claimed, but a fault might not have shown",
}


def investigate(name: str, overrides: Sequence[str], *, thorough: bool, as_json: bool) -> None:
    """Show every part; exit 1 unless the whole passes."""
    console, parts = speaker(as_json=as_json), list[Part]()
    subject = _subject(name, overrides)
    effort = THOROUGH if thorough else SHORT
    found = audit(subject, effort, audit_worker(subject.federation))
    while True:
        with busy(console, "attacking"):
            part = next(found, None)
        if part is None:
            break
        parts.append(part)
        _show(console, part)
    verdict = conclusion(parts)
    say(console, f"{verdict}: {MEANING[verdict]}", style=STYLES[verdict])
    say(console, _summary(subject, parts))
    if as_json:
        emit({"subject": name, "verdict": verdict, "parts": [_json(part) for part in parts]})
    if verdict is not Verdict.PASS:
        raise typer.Exit(ERROR)


def _subject(name: str, overrides: Sequence[str]) -> Subject:
    """A run that has a certificate, unless settings are changed; or a configuration."""
    folder = RunFolder(Path(name))
    if folder.privacy.is_file() and not overrides:
        return of_run(federation_of_run(folder), folder)
    config = chosen(name, overrides)
    return of_federation(settle(config, RunFolder(Path(config.output_dir)))[1])


def _show(console: Console, part: Part) -> None:
    line = Text.assemble((f"{part.verdict:<9}", STYLES[part.verdict]), f"{part.what}: {part.text}")
    console.print(line, soft_wrap=True)
    if figures := _figures(part):
        say(console, f"{'':9}{figures}")


def _figures(part: Part) -> str:
    """Upper bounds are rounded up, lower ones down."""
    if part.claimed is None or part.measured is None:
        return ""
    measured = math.floor(100 * part.measured) / 100
    return (
        f"at δ = {number_text(part.delta)} claimed ε ≤ {epsilon_text(part.claimed)}, measured "
        f"ε ≥ {measured:.2f} with 99 % confidence, room {part.claimed - part.measured:.2f}"
    )


def _summary(subject: Subject, parts: Sequence[Part]) -> str:
    """The claim of the whole beside what was measured."""
    what = "this run" if subject.certificate else "this configuration"
    figures = [text for part in parts if (text := _figures(part))]
    return f"{what}: {figures[-1] if figures else 'no attack was made'}"


def _json(part: Part) -> dict[str, object]:
    if part.claimed is None or part.measured is None:
        return asdict(part)
    return {**asdict(part), "room": part.claimed - part.measured}
