"""Tidy: every run of a comparison as one row of a table, for parquet and csv."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from silotune.reports.comparison import Measurement, estimate
from silotune.reports.comparison_tables import axis_column


def columns(runs: Sequence[Measurement], axes: Sequence[str]) -> dict[str, list[Any]]:
    """Name -> one value a run, trials included; what is unknown is None.

    Args:
        runs: in order.
        axes: their names; each is a column (``axis_column``).
    """
    tuned = list(dict.fromkeys(key for run in runs for key in run.tuned))
    found: dict[str, list[Any]] = {
        "beside": [run.beside for run in runs],
        "role": ["trial" if run.trial else "result" for run in runs],
        "seed": [run.seed for run in runs],
        "metric": [run.metric for run in runs],
        "part": [run.part for run in runs],
        "value": [_known(run.value) for run in runs],
        "untrained": [_known(run.untrained) for run in runs],
        "alone": [_known(estimate(run.alone.values()).mean) for run in runs],
        "silo_lowest": [_known(min(run.silos.values(), default=math.nan)) for run in runs],
        "silo_highest": [_known(max(run.silos.values(), default=math.nan)) for run in runs],
    }
    for name in ("epsilon", "bytes_up", "bytes_down", "seconds", "peak_memory"):
        found[name] = [_known(getattr(run, name)) for run in runs]
    found |= {f"tuned {key}": _of_one_type([run.tuned.get(key) for run in runs]) for key in tuned}
    found |= {"failed": [run.failed for run in runs], "folder": [run.folder for run in runs]}
    return {axis_column(axis, found): [run.labels[axis] for run in runs] for axis in axes} | found


def as_parquet(found: Mapping[str, Sequence[Any]]) -> bytes:
    """A table as a parquet file."""
    buffer = io.BytesIO()
    pq.write_table(pa.table({name: pa.array(cells) for name, cells in found.items()}), buffer)
    return buffer.getvalue()


def as_csv(found: Mapping[str, Sequence[Any]]) -> str:
    """A table as csv; what is unknown is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(found)
    writer.writerows(zip(*found.values(), strict=True))
    return text.getvalue()


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _of_one_type(values: Sequence[Any]) -> list[Any]:
    """Numbers where all that is known are such; else words, so that a column has one type."""
    known = [value for value in values if value is not None]
    kind = float if all(isinstance(value, int | float) for value in known) else str
    return [None if value is None else kind(value) for value in values]
