"""``privacy spent``: what each set of records in a book for life has paid, by run and in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from silotune.core.files import finite
from silotune.core.units import count_text, epsilon_text, number_text
from silotune.privacy.lifetime.choice import default_place
from silotune.privacy.lifetime.spent import SetSpent, spent

from .console import busy, emit, say, speaker


def show(folder: Path | None, delta: float | None, *, as_json: bool) -> None:
    """List the sets of a book, in words or as JSON."""
    console, place = speaker(as_json=as_json), folder or default_place()
    with busy(console, "composing the charges of all runs"):
        sets = spent(place, delta)
    tell_sets(console, place, sets)
    if as_json:
        emit({"folder": str(place), "sets": [finite(asdict(found)) for found in sets]})


def tell_sets(console: Console, place: Path, sets: Sequence[SetSpent]) -> None:
    """The sets of a book in words, a table each.

    Args:
        console: to say it on.
        place: of the book.
        sets: of records.
    """
    say(console, f"{place}: {count_text(len(sets), 'set')} of records")
    for found in sets:
        say(console, "")
        say(console, _heading(found))
        console.print(_table(found))
        say(console, _life(found))


def _heading(found: SetSpent) -> str:
    origin = f" ({found.where})" if found.where else ""
    records = count_text(found.records, "different record")
    return f"{found.whose}{origin}: {records} (set {found.name[:8]})"


def _table(found: SetSpent) -> Table:
    table = Table("run", "began", "releases", box=box.SIMPLE_HEAD, header_style="dim")
    for name in ("rounds", "relation", "δ", "ε at most"):
        table.add_column(name, justify="right")
    for run in found.runs:
        table.add_row(
            Text(run.run),
            run.began[:10],
            ", ".join(f"{n} {name}" for name, n in run.releases.items()),
            f"{run.rounds:,}",
            run.relation,
            number_text(run.delta),
            epsilon_text(run.life.epsilon),
        )
    return table


def _life(found: SetSpent) -> str:
    life = found.life
    why = f" ({life.because})" if life.because else ""
    return (
        f"for life: ε at most {epsilon_text(life.epsilon)} at δ = {number_text(found.delta)} "
        f"({found.relation}), over {count_text(life.runs, 'run')} that had, or may have had, a "
        f"record of this set{why}"
    )
