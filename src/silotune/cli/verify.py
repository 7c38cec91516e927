"""``privacy verify``: findings, one line each, under the figures that follow from the charges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from silotune.certificate.guarantee import NOT_PRIVATE, warning
from silotune.certificate.verify import Verification, verify
from silotune.core.units import count_text, epsilon_text, number_text

from .console import busy, emit, say, speaker
from .errors import ERROR


def check(path: Path, *, as_json: bool) -> None:
    """Verify, show it, and exit 1 if anything does not add up."""
    console = speaker(as_json=as_json)
    with busy(console, "computing every epsilon again"):
        found = verify(path)
    if found.silos:
        console.print(_table(found))
    for finding in found.findings:
        line = Text.assemble(("does not add up", "bold red"), f"  {finding.where}: {finding.text}")
        console.print(line, soft_wrap=True)
    for text, style in _verdict(found):
        say(console, text, style=style)
    if as_json:
        emit(_json(found))
    if not found.ok:
        raise typer.Exit(ERROR)


def _table(found: Verification) -> Table:
    table = Table("account", box=box.SIMPLE_HEAD, header_style="dim", pad_edge=False)
    assert found.said is not None
    again = "ε computed" if found.said.private else "ε if noise were secret"
    for name in ("declared", "steps", "δ", "ε stated", again, f"{again}, RDP"):
        table.add_column(name, justify="right")
    for name, true in found.silos.items():
        silo = found.said.silos[name]
        table.add_row(
            Text(name),
            f"{silo.num_examples:,}",
            f"{silo.steps:,}",
            number_text(silo.delta),
            epsilon_text(silo.epsilon),
            epsilon_text(true.epsilon),
            epsilon_text(true.epsilon_rdp),
        )
    return table


def _verdict(found: Verification) -> Iterator[tuple[str, str | None]]:
    beside = f", {', '.join(found.compared)}" if found.compared else " alone; no ledger to compare"
    yield f"compared: {found.certificate}{beside}", None
    if not found.ok:
        findings = count_text(len(found.findings), "finding")
        yield f"refused:  {findings}; do not rely on this certificate", "bold red"
        return
    if not found.private:
        yield f"adds up, and claims nothing: {NOT_PRIVATE}. {warning(found.said)}", "bold red"
        return
    yield "adds up:  every figure follows from the charges", "bold green"


def _json(found: Verification) -> dict[str, object]:
    return {
        "certificate": found.certificate,
        "ok": found.ok,
        "private": found.private,
        "findings": [asdict(finding) for finding in found.findings],
        "silos": {name: asdict(again) for name, again in found.silos.items()},
        "compared": list(found.compared),
    }
