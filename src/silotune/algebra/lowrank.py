"""Matrices kept as products, so that sums over clients stay exact and small.

Shapes: out, in = features of a site, k = rank of the product.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LowRank:
    """The (out, in) matrix ``left @ right``, never multiplied out unless asked.

    Sums put the factors side by side, so they are exact and their ranks add up.
    """

    left: Tensor  # (out, k)
    right: Tensor  # (k, in)

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return self.left.shape[0], self.right.shape[1]

    @property
    def rank(self) -> int:
        """The inner dimension k, an upper bound of the true rank."""
        return self.left.shape[1]

    def __add__(self, other: LowRank) -> LowRank:
        return LowRank(
            torch.cat([self.left, other.left], dim=1),
            torch.cat([self.right, other.right], dim=0),
        )

    def __sub__(self, other: LowRank) -> LowRank:
        return self + other * -1.0

    def __mul__(self, c: float) -> LowRank:
        return LowRank(self.left * c, self.right)

    def dense(self) -> Tensor:
        """The matrix itself, (out, in)."""
        return self.left @ self.right

    def norm(self) -> Tensor:
        """Frobenius norm by two (k, k) Gram matrices in float64: O((out + in) k^2)."""
        left, right = self.left.double(), self.right.double()
        squared = ((left.mT @ left) * (right @ right.mT)).sum()
        return squared.clamp(min=0.0).sqrt()


Matrix = Tensor | LowRank


def dense(matrix: Matrix) -> Tensor:
    """Multiply out if need be."""
    return matrix.dense() if isinstance(matrix, LowRank) else matrix


def add(a: Matrix, b: Matrix) -> Matrix:
    """Exact sum; stays a product while that is smaller than the (out, in) matrix."""
    if isinstance(a, LowRank) and isinstance(b, LowRank) and a.rank + b.rank < min(a.shape):
        return a + b
    return dense(a) + dense(b)


def norm(matrix: Matrix) -> Tensor:
    """Frobenius norm of either form."""
    return matrix.norm() if isinstance(matrix, LowRank) else torch.linalg.matrix_norm(matrix)
