"""Summary: what a silo holds, in numbers. Not covered by epsilon: for the silo, or a simulation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset

from .record_digests import record_digests
from .targets import label_counts


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Nearest-rank quantiles of the records' lengths, in tokens (1 for an image)."""

    p50: int
    p95: int
    max: int


@dataclass(frozen=True, kw_only=True)
class SiloSummary:
    """Numbers about one silo's training table; ``dataclasses.asdict`` makes it JSON.

    Attributes:
        records: how many.
        labels: records by label, for every label of the set, or entities by type; empty for a task
            without.
        lengths: of the records as the model reads them.
        duplicates: records that repeat an earlier one, whatever their label. They are kept.
        empty: records that were left out because they held nothing to learn from.
        truncated: records that are longer than what is read of them.
    """

    records: int
    labels: Mapping[str, int]
    lengths: Lengths
    duplicates: int
    empty: int
    truncated: int = 0


def summarize(
    table: Dataset,
    lengths: Sequence[int],
    labels: Sequence[str],
    empty: int = 0,
    truncated: int = 0,
) -> SiloSummary:
    """Count one silo.

    Args:
        table: a readable table with one record or more.
        lengths: of its records, as ``Examples.lengths`` has them.
        labels: the public label set.
        empty: records left out before.
        truncated: records that were cut.
    """
    counts = label_counts(table, labels)
    p50, p95, most = np.quantile(np.asarray(lengths), [0.5, 0.95, 1.0], method="inverted_cdf")
    return SiloSummary(
        records=len(table),
        labels=counts,
        lengths=Lengths(p50=int(p50), p95=int(p95), max=int(most)),
        duplicates=len(table) - len(set(record_digests(table))),
        empty=empty,
        truncated=truncated,
    )
