"""Matrices kept as products, so that sums over clients stay exact and small.

Shapes: out, in = features of a site, k = rank of the product, n = any number of columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .decompositions import scaled, times_power, triangle, vector_norm

_CANCELLED = 1e-8  # of the squared terms: below, a Gram form holds less than eight digits


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

    @property
    def mT(self) -> LowRank:  # noqa: N802 (as tensors have it)
        """The transpose."""
        return LowRank(self.right.mT, self.left.mT)

    def __add__(self, other: LowRank) -> LowRank:
        return LowRank(
            torch.cat([self.left, other.left], dim=1),
            torch.cat([self.right, other.right], dim=0),
        )

    def __sub__(self, other: LowRank) -> LowRank:
        return self + other * -1.0

    def __mul__(self, c: float) -> LowRank:
        return LowRank(self.left * c, self.right)

    def __matmul__(self, x: Tensor) -> Tensor:
        """Apply to the columns of ``x`` (in, n): O((out + in) k n)."""
        return self.left @ (self.right @ x)

    def to(self, dtype: torch.dtype) -> LowRank:
        """Both factors in that type."""
        return LowRank(self.left.to(dtype), self.right.to(dtype))

    def dense(self) -> Tensor:
        """The matrix itself, (out, in)."""
        return self.left @ self.right

    def size_of_terms(self) -> Tensor:
        """``sum_i |left_i| |right_i|``, the norms of its k terms: rounding is in proportion."""
        lefts = vector_norm(self.left.double(), dim=0)
        return (lefts * vector_norm(self.right.double(), dim=1)).sum()

    def scaled(self) -> tuple[LowRank, Tensor]:
        """The same in float64 as a product of ordinary size and a power of two, ``p 2^e``.

        Raises:
            NumericalError: if a number is not finite.
        """
        left, of_left = scaled(self.left.double())
        right, of_right = scaled(self.right.double())
        return LowRank(left, right), (of_left + of_right).view(())

    def norm(self) -> Tensor:
        """Frobenius norm in float64, without the matrix: O((out + in) k^2).

        By two (k, k) Gram matrices; where terms cancel, so that those would lose half the digits,
        by the triangles of two QR decompositions. Infinite only if no number is as large.

        Raises:
            NumericalError: if a number is not finite.
        """
        product, exponent = self.scaled()
        squared = _inner(product, product)
        if squared > _CANCELLED * product.size_of_terms() ** 2:
            return times_power(squared.sqrt(), exponent)
        left, right = triangle(product.left), triangle(product.right.mT)
        return times_power(norm(left @ right.mT), exponent)


Matrix = Tensor | LowRank


def dense(matrix: Matrix) -> Tensor:
    """Multiply out if need be."""
    return matrix.dense() if isinstance(matrix, LowRank) else matrix


def norm(matrix: Matrix) -> Tensor:
    """Frobenius norm of either form."""
    return matrix.norm() if isinstance(matrix, LowRank) else vector_norm(matrix)


def inner(a: Matrix, b: Matrix) -> Tensor:
    """``<a, b> = tr(a^T b)`` in float64; products are not multiplied out."""
    if isinstance(a, LowRank) and isinstance(b, LowRank):
        return _inner(a, b)
    if isinstance(a, LowRank):
        return inner(b, a)
    if isinstance(b, LowRank):
        return ((a.double() @ b.right.double().mT) * b.left.double()).sum()
    return (a.double() * b.double()).sum()


def subtract(a: Matrix, b: Matrix) -> Matrix:
    """``a - b`` with all its terms, however many: for what is looked at once and let go."""
    if isinstance(a, LowRank) and isinstance(b, LowRank):
        return a - b
    return dense(a) - dense(b)


def _inner(a: LowRank, b: LowRank) -> Tensor:
    """``tr((a_l^T b_l) (b_r a_r^T))``."""
    lefts = a.left.double().mT @ b.left.double()
    return (lefts * (a.right.double() @ b.right.double().mT)).sum()
