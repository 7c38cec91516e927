"""``data``: how the records divide over the silos, as a table and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from silotune.config import build
from silotune.core.files import write_text
from silotune.federation.data_summary import divide
from silotune.reports.tables import data_table, labels_table

from .config_source import chosen
from .console import busy, emit, say, speaker

WARNING = "these numbers come from the records themselves, all at once: epsilon does not cover them"


def count(name: str, overrides: Sequence[str], picture: Path | None, *, as_json: bool) -> None:
    """Show sizes, labels, lengths, duplicates and empty records of every silo."""
    console, config = speaker(as_json=as_json), chosen(name, overrides)
    with busy(console, "reading all records"):
        data = divide(build(config))
    console.print(data_table(data.silos, console.width))
    if any(silo.labels for silo in data.silos.values()):
        console.print(labels_table(data.silos))
    held, own = sum(data.held_out.values()), sum(data.own_test.values())
    say(console, f"of the silos beside these: {held:,} held out, {own:,} test")
    say(console, f"for everybody: {data.valid:,} valid, {data.test:,} test")
    for text in data.notices:
        say(console, f"notice: {text}")
    say(console, f"simulation: {WARNING}")
    if picture is not None:
        from silotune.reports.silo_plots import data_split

        write_text(picture, data_split(data.silos))
        say(console, f"picture: {picture}")
    if as_json:
        emit({"covered_by_epsilon": False, **asdict(data)})
