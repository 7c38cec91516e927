"""Tables for the terminal. Each takes values and gives something that rich can print.

Names are put in as they are: what looks like rich's markup in the name of a silo is not obeyed.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from silotune.core.units import (
    DASH,
    epsilon_text,
    human_bytes,
    human_seconds,
    metric_text,
    number_text,
    scientific,
)
from silotune.runs.folder import RoundRecord

from .totals import SiloOutcome

if TYPE_CHECKING:  # it imports datasets, which takes a second
    from silotune.data.summary import SiloSummary


@dataclass(frozen=True, kw_only=True)
class PlanRow:
    """What a run will mean for one silo, or for every client, if all take part as planned.

    Attributes:
        silo: its name.
        num_examples: declared; of every client, how many there are.
        sampling_rate: chance of a record to be in a batch, or of a client to be in a round.
        noise_multiplier: std of the noise in units of the clip norm.
        noise_to_signal: norm of a step's noise over the largest norm of its signal,
            ``sigma sqrt(P) / batch_size`` for P trained numbers.
        steps: in all rounds.
        epsilon: after the last round.
        delta: for which epsilon is stated.
        bytes_up: to the server, in an average round.
        bytes_down: to the silo, in an average round.
    """

    silo: str
    num_examples: int
    sampling_rate: float
    noise_multiplier: float
    noise_to_signal: float
    steps: int
    epsilon: float
    delta: float
    bytes_up: int
    bytes_down: int


def rounds_table(rounds: Sequence[RoundRecord], metric: str) -> Table:
    """One row a round: metric, loss, largest epsilon, bytes, aggregation error, time."""
    names = list(dict.fromkeys([metric, *(name for r in rounds for name in r.metrics)]))
    private = any(record.epsilon for record in rounds)
    columns = ["round", *names, *(["largest ε"] if private else [])]
    table = _table([], [*columns, "bytes up", "bytes down", "aggregation error", "time"])
    for record in rounds:
        start = record.round < 0
        cells = ["before" if start else str(record.round + 1)]
        cells += [metric_text(name, record.metrics.get(name)) for name in names]
        if private:
            cells.append(epsilon_text(max(record.epsilon.values(), default=math.nan)))
        done = (
            human_bytes(record.bytes_up),
            human_bytes(record.bytes_down),
            scientific(record.aggregation_error),
            human_seconds(record.seconds),
        )
        table.add_row(*cells, *([DASH] * len(done) if start else done))
    return table


def silos_table(silos: Sequence[SiloOutcome], metric: str) -> Table:
    """One row a silo: declared records and what is known of its metric and epsilon.

    n is the number of records that its metric is of, where these are its own.
    """
    shown = {
        f"{metric} before": [metric_text(metric, silo.before) for silo in silos],
        "alone": [metric_text(metric, silo.alone) for silo in silos],
        "federated": [metric_text(metric, silo.after) for silo in silos],
        "ε spent": [epsilon_text(silo.epsilon) for silo in silos],
    }
    if any(silo.scored is not None for silo in silos):
        shown["n"] = [DASH if silo.scored is None else f"{silo.scored:,}" for silo in silos]
    known = {name: cells for name, cells in shown.items() if set(cells) != {DASH}}
    table = _table(["silo"], ["declared records", *known])
    for i, silo in enumerate(silos[:_MOST_SILOS]):
        size = DASH if silo.num_examples is None else f"{silo.num_examples:,}"
        table.add_row(Text(silo.silo), size, *(cells[i] for cells in known.values()))
    if len(silos) > _MOST_SILOS:
        table.caption = f"and {len(silos) - _MOST_SILOS:,} more: the report has all"
    return table


_MOST_SILOS = 40
"""Silos that the end of a run names."""


def data_table(silos: Mapping[str, SiloSummary], width: int = 160) -> Table:
    """One row a silo: records by label, lengths, cut, repeated and empty records.

    Args:
        silos: numbers about each.
        width: of a line, in characters. Where labels would not fit, there is a column for how
            many of them a silo has, and one for the share of its most common one.
    """
    labels = list(dict.fromkeys(label for silo in silos.values() for label in silo.labels))
    room = sum(max(len(label), 6) + 2 for label in labels)
    by_label = labels if room <= width - _BESIDE_LABELS else []
    folded = ["labels", "most common"] if labels and not by_label else []
    lengths = ["p50", "p95", "max", "cut"]
    table = _table(["silo"], ["records", *by_label, *folded, *lengths, "repeats", "empty"])
    for name, silo in silos.items():
        cells = [f"{number:,}" for number in (silo.labels.get(label, 0) for label in by_label)]
        if folded:
            present = sum(count > 0 for count in silo.labels.values())
            share = max(silo.labels.values(), default=0) / max(silo.records, 1)
            cells = [f"{present:,}", f"{share:.1%}"]
        length = (silo.lengths.p50, silo.lengths.p95, silo.lengths.max, silo.truncated)
        rest = (*length, silo.duplicates, silo.empty)
        table.add_row(Text(name), f"{silo.records:,}", *cells, *(f"{n:,}" for n in rest))
    told = "p50, p95, max: median, 95th percentile and largest of the lengths"
    table.caption = f"{len(labels):,} labels in all; {told}" if folded else told
    return table


_BESIDE_LABELS = 70
"""Characters of a row beside its labels, about."""


@dataclass(frozen=True)
class LabelRow:
    """One label over all silos.

    Attributes:
        label: its name; of the last row perhaps how many others.
        records: that have it.
        share: of all records.
        silos: that have any.
    """

    label: str
    records: int
    share: float
    silos: int


def label_rows(silos: Mapping[str, SiloSummary], most: int = 20) -> list[LabelRow]:
    """The labels with the most records; where there are more than ``most``, others in one row."""
    counts = {
        label: [silo.labels.get(label, 0) for silo in silos.values()]
        for label in dict.fromkeys(label for silo in silos.values() for label in silo.labels)
    }
    total = max(1, sum(map(sum, counts.values())))

    def row(label: str, of: Sequence[Sequence[int]]) -> LabelRow:
        records = sum(map(sum, of))
        where = sum(any(own) for own in zip(*of, strict=True))
        return LabelRow(label, records, records / total, where)

    ranked = sorted(counts, key=lambda label: -sum(counts[label]))
    shown = ranked if len(ranked) <= most + 1 else ranked[:most]
    rows = [row(label, [counts[label]]) for label in shown]
    if rest := ranked[len(shown) :]:
        rows.append(row(f"{len(rest):,} others", [counts[label] for label in rest]))
    return rows


def labels_table(silos: Mapping[str, SiloSummary]) -> Table:
    """One row a label, over all silos; rare ones together."""
    table = _table(["label"], ["records", "share", "silos"])
    for row in label_rows(silos):
        label = Text(row.label, no_wrap=True, overflow="ellipsis")
        table.add_row(label, f"{row.records:,}", f"{row.share:.1%}", f"{row.silos:,}")
    return table


def plan_table(rows: Sequence[PlanRow], unit: str = "example") -> Table:
    """One row a silo (under unit: client, one for every client): what the run will cost it."""
    who = ("account", "clients") if unit == "client" else ("silo", "declared records")
    columns = ["sampling rate", "noise multiplier σ", "noise / signal"]
    columns += ["rounds" if unit == "client" else "steps", "ε", "δ"]
    table = _table([who[0]], [who[1], *columns, "bytes up / round", "bytes down / round"])
    for row in rows:
        table.add_row(
            Text(row.silo),
            f"{row.num_examples:,}",
            number_text(row.sampling_rate),
            number_text(row.noise_multiplier),
            f"{row.noise_to_signal:.2f}",
            f"{row.steps:,}",
            epsilon_text(row.epsilon),
            number_text(row.delta),
            human_bytes(row.bytes_up),
            human_bytes(row.bytes_down),
        )
    return table


def epsilon_table(by_round: Mapping[str, Sequence[float]], rows: int = 10) -> Table:
    """Planned epsilon of every silo after 1, 2, ... rounds.

    Args:
        by_round: silo -> epsilon after each round.
        rows: at most so many of the rounds are shown, evenly spaced, the last among them.
    """
    table = _table([], ["round", *(f"ε {name}" for name in by_round)])
    last = max(map(len, by_round.values()), default=0)
    step = max(1, math.ceil(last / rows))
    for done in range(last, 0, -step)[::-1]:
        table.add_row(str(done), *(epsilon_text(values[done - 1]) for values in by_round.values()))
    return table


def as_text(*parts: Table | str, width: int = 160) -> str:
    """Tables and sentences as plain text, for ``print``.

    Args:
        parts: one under another.
        width: of a line, in characters; longer sentences go on below.
    """
    console = Console(file=io.StringIO(), width=width, no_color=True, force_jupyter=False)
    with console.capture() as capture:
        for part in parts:
            if isinstance(part, str):
                console.print(Text(part))
            else:
                console.print(part, soft_wrap=True)
    return "\n".join(line.rstrip() for line in capture.get().rstrip().splitlines())


def _table(words: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="dim", pad_edge=False)
    for name in words:
        table.add_column(Text(name))
    for name in numbers:
        table.add_column(Text(name), justify="right")
    return table
