"""PerExampleGradients: where the backward pass leaves the gradient of every single example.

Where nothing is bounded by example, the same kernels give autograd the sum over the batch instead:
that asks nothing of the shape of what a layer reads, and the rows of a whole matrix would be n
times its size.

Shapes: n examples. A slot is allocated when backward first writes it, at a moment when
activations are being freed, so the peak of memory hardly moves. Where layers are computed again in
the backward pass, few activations are there to be freed, and rows are a part of the peak that grows
with n and with the rank (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .crowd import Crowd
from .factors import Key
from .outer import Outer, Rows, dense
from .record_axis import LEADING, RecordAxis


class PerExampleGradients:
    """Per-example gradients of one backward pass: one (n, *shape) tensor per key.

    Closed (the normal state), adapted layers are ordinary autograd. Open for rows, their trained
    tensors get no ``.grad``; the rows appear here instead. Open for sums, the kernels leave
    ``.grad`` as ordinary autograd would, in less memory.

    Attributes:
        crowd: whose tensors each record meets, where not all meet those of the layers.
    """

    def __init__(self) -> None:
        self._examples: int | None = None
        self._rows: dict[Key, Any] = {}
        self._factored = False
        self._sums = False
        self._scratch: Tensor | None = None
        self.crowd: Crowd | None = None

    @property
    def is_open(self) -> bool:
        """Whether layers train through the kernels."""
        return self._examples is not None or self._sums

    @contextmanager
    def collect(self, examples: int, crowd: Crowd | None = None) -> Iterator[dict[Key, Tensor]]:
        """Open for the rows of one forward and backward pass over ``examples`` records.

        Args:
            examples: n.
            crowd: whose they are, if they are of several clients.
        """
        assert not self.is_open, "the sink is open already"
        self._examples, self._rows, self.crowd = examples, {}, crowd
        try:
            yield self._rows
        finally:
            self._examples, self._rows, self._scratch, self.crowd = None, {}, None, None

    @contextmanager
    def collect_rows(self, examples: int, crowd: Crowd | None = None) -> Iterator[dict[Key, Rows]]:
        """As ``collect``; what is of rank one stays as its factors."""
        with self.collect(examples, crowd):
            self._factored = True
            try:
                yield self._rows
            finally:
                self._factored = False

    @contextmanager
    def summed(self) -> Iterator[None]:
        """Open for sums over the batch, which bound nothing: never where records are hidden."""
        assert not self.is_open, "the sink is open already"
        self._sums = True
        try:
            yield
        finally:
            self._sums, self._scratch = False, None

    def scratch(self, like: Tensor) -> Tensor:
        """Room for a tensor that is used at once and not again: every caller has the same.

        A fresh one for each layer takes longer to page in than to fill.
        """
        have = self._scratch
        fits = have is not None and (have.dtype, have.device) == (like.dtype, like.device)
        if have is None or not fits or have.numel() < like.numel():
            self._scratch = have = like.new_empty(like.numel())
        return have[: like.numel()].view(like.shape)

    def product(
        self, key: Key, left: Tensor, right: Tensor, records: RecordAxis = LEADING
    ) -> Tensor | None:
        """The gradient ``left^T right`` of a matrix: row by row into the sink, or their sum.

        Args:
            key: of the matrix.
            left: (..., out).
            right: (..., in).
            records: where they lie in both.

        Returns:
            What autograd is to get: (out, in), or nothing where rows are collected.

        Raises:
            ValueError: if rows are collected, and the axis does not hold so many records.
        """
        if self._sums:
            return left.reshape(-1, left.shape[-1]).mT @ right.reshape(-1, right.shape[-1])
        of_out, of_in = self.rows(key, left, records), self.rows(key, right, records)
        if self._factored and _is_smaller_as_factors(of_out, of_in):
            # copies, since either may be a part of something larger that would be kept for it
            self.add(key, Outer(of_out[:, 0].clone(), of_in[:, 0].clone()))
            return None
        tall = of_out.shape[-1] > of_in.shape[-1]  # few rows of many columns multiply faster
        rows = torch.bmm(of_in.mT, of_out).mT if tall else torch.bmm(of_out.mT, of_in)
        self.add(key, rows)
        return None

    def total(self, key: Key, rows: Tensor, records: RecordAxis = LEADING) -> Tensor | None:
        """The gradient of a vector that is added everywhere, as ``product`` has it.

        Args:
            key: of the vector.
            rows: (..., features), what arrives at every place.
            records: where they lie.

        Raises:
            ValueError: as ``product``.
        """
        if self._sums:
            return rows.reshape(-1, rows.shape[-1]).sum(dim=0)
        self.add(key, self.rows(key, rows, records).sum(dim=1))
        return None

    def copies(self, key: Key, rows: Tensor) -> Tensor | None:
        """The gradient of what each record has a copy of, (n, *shape), as ``product`` has it."""
        if self._sums:
            return rows.sum(dim=0)
        self.add(key, rows)
        return None

    def rows(self, key: Key, t: Tensor, records: RecordAxis) -> Tensor:
        """(..., features) as (n, T, features).

        Raises:
            ValueError: if the axis does not hold so many records.
        """
        assert self._examples is not None, "rows are collected from nothing"
        try:
            return records.rows(t, self._examples)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None

    def add(self, key: Key, rows: Rows) -> None:
        """Add rows (n, *shape); a tensor used several times in a forward pass sums them.

        Raises:
            ValueError: if the first dimension does not count examples.
        """
        if rows.shape[0] != self._examples:
            raise ValueError(
                f"{key}: per-example gradients need inputs whose first dimension counts examples "
                f"({self._examples}), but this layer saw {rows.shape[0]}"
            )
        earlier = self._rows.get(key)
        self._rows[key] = rows if earlier is None else dense(earlier) + dense(rows)


def _is_smaller_as_factors(left: Tensor, right: Tensor) -> bool:
    """Of one position, (n, 1, out) and (n, 1, in), and fewer numbers than their products."""
    (out, width) = left.shape[-1], right.shape[-1]
    return left.shape[1] == 1 and out + width < out * width
