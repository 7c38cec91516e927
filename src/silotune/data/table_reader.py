"""Table reader: how every table of a run is made readable, agreed on once."""

from __future__ import annotations

from dataclasses import dataclass, replace

from datasets import Dataset

from silotune.objectives.task import Target

from .columns import Columns, filled_rows, readable
from .labels import LabelMap
from .targets import Range
from .unmarked import rows_of


@dataclass(frozen=True, kw_only=True)
class TableReader:
    """Makes tables readable.

    Attributes:
        columns: where things are.
        labels: the public label set.
        label_map: what the data call some of them.
        target: what is learned.
        within: the lowest and the highest number that is learned, where they are declared.
    """

    columns: Columns
    labels: tuple[str, ...]
    label_map: LabelMap
    target: Target = "label"
    within: Range = None

    def read(self, table: Dataset, where: str) -> Dataset:
        """A readable table."""
        told = (self.label_map, self.target, self.within)
        return readable(table, self.columns, self.labels, where, *told)

    def filled(self, table: Dataset, where: str) -> tuple[Dataset | None, int]:
        """The same without empty records, None if no record is left, and how many those were."""
        if len(table) == 0:
            return None, 0
        rows = self.read(table, where)
        kept = filled_rows(rows)
        return rows_of(rows, kept) if len(kept) else None, len(rows) - len(kept)

    def scored(self) -> TableReader:
        """Of tables that are not trained on: nobody asks whose their records are."""
        return replace(self, columns=replace(self.columns, person=None))
