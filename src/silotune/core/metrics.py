"""Metrics: numbers that add up over batches and silos."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Meter:
    """A mean kept as sum and count, so that pooling two groups is exact."""

    total: float
    count: float

    def __add__(self, other: Meter) -> Meter:
        return Meter(self.total + other.total, self.count + other.count)

    def value(self) -> float:
        """The mean; NaN when nothing was counted."""
        return self.total / self.count if self.count else float("nan")


Meters = Mapping[str, Meter]


def pool(groups: Iterable[Meters]) -> Meters:
    """Add meters by name."""
    out: dict[str, Meter] = {}
    for group in groups:
        for name, meter in group.items():
            out[name] = out[name] + meter if name in out else meter
    return out
