"""GradientSink: where the backward pass leaves the gradient of every single example.

Shapes: n examples. A slot is allocated when backward first writes it, at a moment when
activations are being freed, so the peak of memory hardly moves (specs: privacy, section 1).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from .factors import Key


class GradientSink:
    """Per-example gradients of one backward pass: one (n, *shape) tensor per key.

    Closed (the normal state), adapted layers are ordinary autograd. Open, their trained tensors
    get no ``.grad``; the rows appear here instead.
    """

    def __init__(self) -> None:
        self._examples: int | None = None
        self._rows: dict[Key, Tensor] = {}

    @property
    def is_open(self) -> bool:
        """Whether layers should write rows."""
        return self._examples is not None

    @contextmanager
    def collect(self, examples: int) -> Iterator[dict[Key, Tensor]]:
        """Open the sink for one forward and backward pass over ``examples`` records."""
        assert self._examples is None, "the sink is open already"
        self._examples, self._rows = examples, {}
        try:
            yield self._rows
        finally:
            self._examples, self._rows = None, {}

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
