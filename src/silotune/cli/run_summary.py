"""The end of a run: what came of it, read from its folder, for people and for scripts."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.console import Console

from silotune.certificate.guarantee import NOT_PRIVATE, noun, warning
from silotune.core.units import (
    count_text,
    epsilon_text,
    human_bytes,
    human_seconds,
    metric_text,
    number_text,
)
from silotune.federation.results import own_adapters
from silotune.reports.certainty import score_text
from silotune.reports.prose import decline
from silotune.reports.tables import silos_table
from silotune.reports.totals import Outcome, outcome, silo_outcomes
from silotune.runs.facts import read_facts
from silotune.runs.folder import RunFolder
from silotune.runs.privacy_statement import PrivacyStatement, read_statement
from silotune.runs.standing import standing

from .console import say


def tell(folder: RunFolder, console: Console) -> None:
    """Before and after, silo by silo, what it cost, and where things are."""
    facts, rounds = read_facts(folder), folder.read_rounds()
    silos = silo_outcomes(facts, rounds, read_statement(folder))
    totals = outcome(rounds, facts.metric)
    say(console)
    say(console, _scores(totals), style="bold")
    if facts.scored:
        text = score_text(facts.scored)
        say(console, f"{facts.scored.part}: {text} (in brackets: 95 % intervals, of this run)")
    if worse := decline(totals):
        say(console, worse, style="bold red")
    console.print(silos_table(silos, facts.metric))
    if alarm := _alarm(folder):
        say(console, alarm, style="bold red")
    for line in _rest(folder):
        say(console, line)


def result(folder: RunFolder) -> dict[str, Any]:
    """The same for scripts; what is unknown is null."""
    facts, rounds, statement = read_facts(folder), folder.read_rounds(), read_statement(folder)
    private = not warning(statement)
    return {
        "run": facts.run,
        "status": standing(folder, facts),
        "output_dir": str(folder.path),
        "adapter": str(folder.adapter),
        "report": str(folder.report),
        **asdict(outcome(rounds, facts.metric)),
        "final": dict(facts.final),
        "private": private,
        "epsilon": statement.largest_epsilon() if statement else None,
        "delta": statement.target_delta if statement else None,
        "silos": [asdict(silo) for silo in silo_outcomes(facts, rounds, statement)],
    }


def _scores(totals: Outcome) -> str:
    name, rounds = totals.metric, count_text(totals.rounds, "round")
    took = f"{human_seconds(totals.seconds)}, " if math.isfinite(totals.seconds) else ""
    score = f"{rounds}, nobody told a score"
    if math.isfinite(totals.after):
        start = math.isfinite(totals.before)
        before = f"{metric_text(name, totals.before)} before, " if start else ""
        score = f"{name}: {before}{metric_text(name, totals.after)} after {rounds}"
    return (
        f"{score} ({took}{human_bytes(totals.bytes_up)} up, {human_bytes(totals.bytes_down)} down)"
    )


def _alarm(folder: RunFolder) -> str:
    """What nobody may overlook."""
    statement = read_statement(folder)
    alarm = warning(statement) if statement else ""
    return f"privacy:  {NOT_PRIVATE}. {alarm}" if alarm else ""


def _for_life(statement: PrivacyStatement) -> Iterator[str]:
    """What records have paid with other runs, at most; nothing where this run is the only one."""
    lives = {
        name: silo.lifetime
        for name, silo in statement.silos.items()
        if silo.lifetime and silo.lifetime["runs"] > 1
    }
    if not lives:
        return
    paid = [life["epsilon"] for life in lives.values()]
    worst = math.inf if None in paid else max(paid)
    runs = {life["runs"] for life in lives.values()}
    over = f"{'up to ' if len(runs) > 1 else ''}{max(runs)} runs"
    why = next((f"; {life['because']}" for life in lives.values() if life["because"]), "")
    yield (
        f"for life: {', '.join(lives)}: ε ≤ {epsilon_text(worst)} at "
        f"δ = {number_text(statement.target_delta)} over {over} on records of the same place{why}"
    )


def _rest(folder: RunFolder) -> Iterator[str]:
    statement = read_statement(folder)
    if statement is None:
        yield "privacy:  none; treat the adapter as if it were the records"
    elif not warning(statement):
        yield (
            f"privacy:  every {noun(statement)}: ε ≤ {epsilon_text(statement.largest_epsilon())} "
            f"at δ = {number_text(statement.target_delta)} for the whole run; {folder.privacy} "
            "says what that covers"
        )
        yield from _for_life(statement)
        yield f"verify:   {shlex.join(['silotune', 'privacy', 'verify', str(folder.path)])}"
    yield f"report:   {folder.report}"
    checked = read_facts(folder).adapter_check
    if own_adapters(folder):
        yield f"adapters: {folder.path}/sites/SILO/adapter, one of each silo  ({checked})"
    else:
        yield f"adapter:  {folder.adapter}  ({checked})"
    yield f"evaluate: {shlex.join(['silotune', 'evaluate', str(folder.path)])}"
