"""PerExampleGradients: where the backward pass leaves the gradient of every single example.

Where nothing is bounded by example, a layer may leave the sum over the batch instead: the rows of
a whole matrix would be n times its size.

Shapes: n examples. A slot is allocated when backward first writes it, at a moment when
activations are being freed, so the peak of memory hardly moves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from .factors import Key


class PerExampleGradients:
    """Per-example gradients of one backward pass: one (n, *shape) tensor per key.

    Closed (the normal state), adapted layers are ordinary autograd. Open, their trained tensors
    get no ``.grad``; the rows appear here instead.
    """

    def __init__(self) -> None:
        self._examples: int | None = None
        self._rows: dict[Key, Tensor] = {}
        self._totals: dict[Key, Tensor] | None = None

    @property
    def is_open(self) -> bool:
        """Whether layers should write rows."""
        return self._examples is not None

    @property
    def takes_totals(self) -> bool:
        """Whether a layer may leave sums over the batch in place of rows."""
        return self._totals is not None

    @contextmanager
    def collect(
        self, examples: int, totals: dict[Key, Tensor] | None = None
    ) -> Iterator[dict[Key, Tensor]]:
        """Open the sink for one forward and backward pass over ``examples`` records.

        Args:
            examples: n.
            totals: where sums over the batch are added up; None if only rows will do, as always
                under privacy.
        """
        assert self._examples is None, "the sink is open already"
        self._examples, self._rows, self._totals = examples, {}, totals
        try:
            yield self._rows
        finally:
            self._examples, self._rows, self._totals = None, {}, None

    def add(self, key: Key, rows: Tensor) -> None:
        """Add rows (n, *shape); a tensor used several times in a forward pass sums them.

        Raises:
            ValueError: if the first dimension does not count examples.
        """
        if rows.shape[0] != self._examples:
            raise ValueError(
                f"{key}: per-example gradients need inputs whose first dimension counts examples "
                f"({self._examples}), but this layer saw {rows.shape[0]}"
            )
        self._rows[key] = self._rows[key] + rows if key in self._rows else rows

    def add_total(self, key: Key, total: Tensor) -> None:
        """Add a sum over the batch, of the tensor's own shape, if the sink takes totals."""
        assert self._totals is not None, "what is clipped by example needs rows"
        self._totals[key] = self._totals[key] + total if key in self._totals else total
