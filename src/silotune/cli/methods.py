"""``methods``: the catalogue."""

from __future__ import annotations

from dataclasses import asdict

from rich import box
from rich.table import Table
from rich.text import Text

from silotune.methods import known
from silotune.methods.catalogue import Entry, catalogue

from .console import emit, say, speaker


def list_methods(*, as_json: bool) -> None:
    """Show every method: what it is, what it trains and sends, and whether it can be private."""
    console, entries = speaker(as_json=as_json), catalogue(dict.fromkeys(known().values()))
    console.print(_methods(entries))
    for entry in entries:
        for unit, why in entry.refused.items():
            say(console, f"{entry.name}, privacy.unit: {unit}: {why}")
    say(
        console,
        "exact: whether its own average is; aggregation: rules that may take its place "
        "(method.aggregation). A and B: the factors of an adapter; D: a whole matrix; head: the "
        "classifier, if it is trained. Options, noise and what travels: docs/methods.md",
    )
    if as_json:
        emit([asdict(entry) for entry in entries])


def _methods(entries: list[Entry]) -> Table:
    columns = ("what it is", "trains", "sends", "exact", "aggregation", "example", "client")
    shown = Table("method.name", *columns, box=box.SIMPLE_HEAD)
    for entry in entries:
        shown.add_row(
            Text(entry.name, style="bold"),
            entry.summary,
            entry.trains,
            entry.sends if entry.sends != entry.trains else "the same",
            entry.exact.partition(",")[0].partition(";")[0].rstrip("."),
            ", ".join(rule for rule, units in entry.aggregations.items() if units) or "–",
            *("refused" if unit in entry.refused else "yes" for unit in ("example", "client")),
        )
    return shown
