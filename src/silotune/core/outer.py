"""Outer: gradients of records that are of rank one, kept as their two factors.

A layer that reads one position of a record (a head after pooling) gives it the gradient g x^T. As
factors the rows are n (out + in) numbers and not n out in; their norms are products of norms (the
ghost norm of Li et al. 2022, arXiv 2110.05679, where nothing can cancel), and their weighted sum is
one product (Bu et al. 2023, arXiv 2210.00038).

Of several positions T the norm is a sum over T^2 products that may cancel, so that in float32 a
bound on it would be none; and the factors are fewer numbers only while T < out in / (out + in),
which is less than the rank of a pair. There rows are kept.

Shapes: n records.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Outer:
    """Rows (n, out, in): of record i ``left_i right_i^T``.

    Attributes:
        left: (n, out).
        right: (n, in).
    """

    left: Tensor
    right: Tensor

    @property
    def shape(self) -> torch.Size:
        """(n, out, in)."""
        return torch.Size((*self.left.shape, self.right.shape[1]))

    @property
    def dtype(self) -> torch.dtype:
        """Of its numbers."""
        return self.left.dtype

    @property
    def device(self) -> torch.device:
        """Where they lie."""
        return self.left.device

    def dense(self) -> Tensor:
        """(n, out, in) as numbers."""
        return self.left[:, :, None] * self.right[:, None, :]

    def norms(self) -> Tensor:
        """(n,) L2 norms of the rows, in float64: squares of small numbers are none in float32."""
        left: Tensor = torch.linalg.vector_norm(self.left, dim=1, dtype=torch.float64)
        right: Tensor = torch.linalg.vector_norm(self.right, dim=1, dtype=torch.float64)
        return left * right

    def weighted(self, weights: Tensor) -> Tensor:
        """Sums of the rows (..., out, in), each with its own weights (..., n)."""
        return (weights.unsqueeze(-1) * self.left).mT @ self.right

    def without(self, broken: Tensor) -> Outer:
        """With zeros in place of some records (n,)."""
        gone = broken[:, None]
        return Outer(self.left.masked_fill(gone, 0.0), self.right.masked_fill(gone, 0.0))

    def part(self, records: slice) -> Outer:
        """Of some records."""
        return Outer(self.left[records], self.right[records])


Rows = Tensor | Outer
"""Gradients of n records, (n, *shape)."""


def dense(rows: Rows) -> Tensor:
    """(n, *shape) as numbers."""
    return rows.dense() if isinstance(rows, Outer) else rows
