"""Divide: which records of one pool belong to which silo, as the configuration says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from datasets import Dataset

from . import partition
from .columns import require, values_of
from .partition import Indices

Division = Literal["iid", "dirichlet", "quantity", "label-skew-mild", "label-skew-severe"]


@dataclass(frozen=True, kw_only=True)
class Silos:
    """How one pool of records becomes silos: by a column, or ``num`` of them by a partition.

    Attributes:
        by: the column whose values name the silos.
        num: how many silos a partition makes (simulation).
        split: which partition.
        alpha: concentration of ``dirichlet`` and ``quantity``; small is uneven.
    """

    by: str | None = None
    num: int | None = None
    split: Division = "iid"
    alpha: float = 0.5


def named_rows(table: Dataset, by: str, where: str) -> dict[str, Indices]:
    """Rows of the silos that a column names.

    Raises:
        ValueError: if the column is missing, or a record names no silo.
    """
    require(table, by, "data.silos.by", where)
    return partition.by_column(values_of(table, by))


def drawn_rows(pool: Dataset, silos: Silos, seed: int) -> dict[str, Indices]:
    """Rows of the silos that a partition makes, named silo-0, silo-1, ... For simulation only.

    Args:
        pool: a readable table without empty records.
        silos: with ``num``.
        seed: of the run.

    Raises:
        ValueError: if the partition cannot be made of these records.
    """
    parts = _partition(pool, silos, silos.num or 0, seed)
    digits = len(str(len(parts) - 1))
    return {f"silo-{i:0{digits}}": rows for i, rows in enumerate(parts)}


def _partition(pool: Dataset, silos: Silos, num: int, seed: int) -> list[Indices]:
    if silos.split == "iid":
        return partition.iid(len(pool), num, seed)
    if silos.split == "quantity":
        return partition.quantity(len(pool), num, silos.alpha, seed)
    if "label" not in pool.column_names:
        raise ValueError(f"data.silos.split: {silos.split} needs data.columns.label")
    labels: list[int] = pool["label"][:]
    if silos.split == "dirichlet":
        return partition.dirichlet(labels, num, silos.alpha, seed)
    return partition.label_skew(labels, num, silos.split.removeprefix("label-skew-"), seed)
