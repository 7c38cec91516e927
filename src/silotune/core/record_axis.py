"""RecordAxis: where the records of a batch lie in what a layer reads.

Most layers read (n, ..., features). Others read the positions of all records in one long row,
windows of images, or positions first and records second; what holds for a layer is found by a
probe (``models.probe``).

Shapes: n records, k parts of each, T positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor


@dataclass(frozen=True)
class RecordAxis:
    """An axis, and how records are laid out along it.

    Attributes:
        axis: from the front; never the last, which holds features.
        parts: ``one``, the axis counts records; ``outer``, it is (n, k) in one; ``inner``, (k, n).
    """

    axis: int = 0
    parts: Literal["one", "outer", "inner"] = "one"

    def rows(self, t: Tensor, n: int) -> Tensor:
        """(..., features) as (n, T, features). Of one record everything is its own.

        Raises:
            ValueError: if the axis does not hold so many records.
        """
        if n == 1:
            return t.reshape(1, -1, t.shape[-1])
        size = t.shape[self.axis] if t.dim() > self.axis + 1 else 0
        if size % n or size < n or (self.parts == "one" and size != n):
            first = "first" if self.axis == 0 else f"{self.axis + 1}."
            raise ValueError(
                f"per-example gradients need inputs whose {first} dimension counts examples "
                f"({n}), but this layer saw {size}"
            )
        before, after = t.shape[: self.axis], t.shape[self.axis + 1 :]
        inner = self.parts == "inner"
        apart = t.reshape(*before, *((size // n, n) if inner else (n, size // n)), *after)
        return apart.movedim(self.axis + inner, 0).reshape(n, -1, t.shape[-1])

    def back(self, rows: Tensor, shape: Sequence[int]) -> Tensor:
        """(n, T, features) as (*shape, features): what ``rows`` undoes.

        Args:
            rows: in the order of ``rows``.
            shape: without the features, which may be others by now.
        """
        n, features = rows.shape[0], rows.shape[-1]
        if n == 1 or (self.axis == 0 and self.parts != "inner"):
            return rows.reshape(*shape, features)
        before, size, after = shape[: self.axis], shape[self.axis], shape[self.axis + 1 :]
        apart = rows.reshape(n, *before, size // n, *after, features)
        return apart.movedim(0, self.axis + (self.parts == "inner")).reshape(*shape, features)


LEADING = RecordAxis()
"""(n, ..., features)."""
