"""``privacy verify``: findings, one line each, under the figures that follow from the charges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from silotune.certificate.circumstances import Described
from silotune.certificate.guarantee import NOT_PRIVATE, warning
from silotune.certificate.signature import public_key
from silotune.certificate.verify import Demands, Verification, verify
from silotune.core.plain import plain
from silotune.core.units import count_text, epsilon_text, number_text
from silotune.federation.offer import digest_of_terms
from silotune.federation.opening import identity
from silotune.federation.run import described
from silotune.federation.verify import DESCRIBERS
from silotune.runs.folder import RunFolder

from .config_source import of_run
from .console import busy, emit, say, speaker
from .errors import ERROR

MOST = 2000
"""Characters of a line; what stands in a certificate may be anybody's."""


def check(path: Path, keys: Sequence[str], *, require_signatures: bool, as_json: bool) -> None:
    """Verify, show it, and exit 1 if anything does not add up.

    Args:
        path: of a run, or a certificate.
        keys: ``SILO=PUBLIC``, of silos that must have signed.
        require_signatures: whether all must have.
        as_json: one line of JSON, for scripts.

    Raises:
        ValueError: if a key is none.
    """
    demands = Demands(keys=dict(map(_key, keys)), everybody=require_signatures)
    with busy(speaker(as_json=as_json), "computing every epsilon again"):
        verification = verify(path, {"config.yaml": _configured, **DESCRIBERS}, demands)
    tell(verification, as_json=as_json)


def tell(verification: Verification, *, as_json: bool) -> None:
    """Show what came of a verification, and exit 1 if anything does not add up."""
    console = speaker(as_json=as_json)
    if verification.silos:
        console.print(_table(verification))
    for finding in verification.findings:
        found = plain(f"{finding.where}: {finding.text}", MOST)
        line = Text.assemble(("does not add up", "bold red"), f"  {found}")
        console.print(line, soft_wrap=True)
    for text, style in _verdict(verification):
        say(console, plain(text, MOST), style=style)
    for limit in verification.limits if verification.private else ():
        say(console, plain(f"not shown: {limit}", MOST), style="dim")
    if as_json:
        emit(_json(verification))
    if not verification.ok:
        raise typer.Exit(ERROR)


def _key(text: str) -> tuple[str, str]:
    silo, _, key = text.rpartition("=")
    if not silo:
        raise ValueError(f"key: give SILO=PUBLIC, not {text!r}")
    return silo, public_key(key)


def _configured(folder: RunFolder) -> Described:
    """The run as ``config.yaml`` describes it."""
    federation = of_run(folder)
    offered = digest_of_terms(federation.terms) if federation.records.elsewhere else ""
    return Described(federation.terms, described(federation), identity(federation), offered=offered)


def _table(verification: Verification) -> Table:
    table = Table("account", box=box.SIMPLE_HEAD, header_style="dim", pad_edge=False)
    assert verification.statement is not None
    again = "ε computed" if verification.statement.private else "ε if noise were secret"
    for name in ("declared", "steps", "δ", "ε stated", again, f"{again}, RDP"):
        table.add_column(name, justify="right")
    for name, true in verification.silos.items():
        silo = verification.statement.silos[name]
        table.add_row(
            Text(plain(name)),
            f"{silo.num_examples:,}",
            f"{silo.steps:,}",
            number_text(silo.delta),
            epsilon_text(silo.epsilon),
            epsilon_text(true.epsilon),
            epsilon_text(true.epsilon_rdp),
        )
    return table


def _verdict(verification: Verification) -> Iterator[tuple[str, str | None]]:
    beside = (
        f", {', '.join(verification.compared)}"
        if verification.compared
        else " alone; no ledger to compare"
    )
    yield f"compared: {verification.certificate}{beside}", None
    if verification.uncompared:
        names = ", ".join(verification.uncompared)
        yield f"not compared: {names}; not here, or not to be read here", None
    if verification.signed:
        yield f"signed:   by {', '.join(verification.signed)}", None
    if not verification.ok:
        findings = count_text(len(verification.findings), "finding")
        yield f"refused:  {findings}; do not rely on this certificate", "bold red"
        return
    if not verification.private:
        yield (
            f"adds up, and claims nothing: {NOT_PRIVATE}. {warning(verification.statement)}",
            "bold red",
        )
        return
    yield (
        "adds up:  every epsilon follows from the charges, every sentence from the numbers and "
        "kinds beside it",
        "bold green",
    )


def _json(verification: Verification) -> dict[str, object]:
    return {
        "certificate": verification.certificate,
        "ok": verification.ok,
        "private": verification.private,
        "findings": [asdict(finding) for finding in verification.findings],
        "silos": {name: asdict(again) for name, again in verification.silos.items()},
        "compared": list(verification.compared),
        "not_compared": list(verification.uncompared),
        "signed": list(verification.signed),
        "not_shown": list(verification.limits),
    }
