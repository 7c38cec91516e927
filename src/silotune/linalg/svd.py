"""Singular values of products, without the matrix, and what may be cut off from them.

A product's two factors are reduced to triangles by QR in float64, and only the small product of
these is decomposed: O((out + in) k^2) time and O((out + in) k) memory, as accurate as a dense SVD.
Values below the rounding of the terms are nothing: they are dropped, with their vectors.

Shapes: out, in = features of a site, k = rank of a product, n = rank that is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .decompositions import dense_svd, finite, qr, scaled, times_power
from .lowrank import LowRank, Matrix, norm

_ROUNDING = 8 * torch.finfo(torch.float64).eps


@dataclass(frozen=True, eq=False)
class Spectrum:
    """``left diag(values) right``: orthonormal on either side, values positive and falling."""

    left: Tensor  # (out, n)
    values: Tensor  # (n,)
    right: Tensor  # (n, in)

    def balanced(self) -> LowRank:
        """The square root of every value on either side: both factors see gradients alike."""
        root = self.values.sqrt()
        return LowRank(self.left * root, root[:, None] * self.right)

    def heavy_left(self) -> LowRank:
        """All values on the left; the rows on the right stay orthonormal."""
        return LowRank(self.left * self.values, self.right)


def svd(matrix: Matrix, rank: int | None = None, tolerance: float = 0.0) -> Spectrum:
    """The leading singular triples, in float64.

    Args:
        matrix: in either form.
        rank: how many at most; None for all.
        tolerance: values up to it are dropped, beside those that are rounding.
    """
    if not isinstance(matrix, LowRank):
        u, s, vh = dense_svd(matrix.double())
        n = _above(s, max(tolerance, _rounding(matrix)), rank)
        return Spectrum(u[:, :n], s[:n], vh[:n])
    product, exponent = matrix.scaled()
    q_left, r_left = qr(product.left)
    q_right, r_right = qr(product.right.mT)
    u, s, vh = dense_svd(r_left @ r_right.mT)
    values = finite(times_power(s, exponent))
    least = times_power(torch.tensor(_rounding(product), dtype=s.dtype), exponent)
    n = _above(values, max(tolerance, float(least)), rank)
    return Spectrum(q_left @ u[:, :n], values[:n], vh[:n] @ q_right.mT)


def sketched_svd(
    matrix: Matrix,
    rank: int,
    generator: torch.Generator,
    *,
    oversampling: int = 8,
    passes: int = 2,
) -> Spectrum:
    """The leading singular triples from a random range (Halko, Martinsson, Tropp; 0909.4061).

    Exact up to rounding if the matrix has no higher rank; otherwise close to the best.

    Args:
        matrix: in either form.
        rank: how many at most.
        generator: of the Gaussian test matrix.
        oversampling: columns of the test matrix beyond ``rank``.
        passes: power iterations; each sharpens the range where values fall slowly.
    """
    exact, exponent = _scaled(matrix)
    width = min(rank + oversampling, *matrix.shape)
    test = torch.randn(matrix.shape[1], width, generator=generator, dtype=torch.float64)
    columns = _orthonormal(exact @ test)
    for _ in range(passes):
        columns = _orthonormal(exact @ _orthonormal(exact.mT @ columns))
    u, s, vh = dense_svd((exact.mT @ columns).mT)
    n = _above(s, _rounding(exact), rank)
    return Spectrum(columns @ u[:, :n], finite(times_power(s[:n], exponent)), vh[:n])


def truncate(matrix: Matrix, rank: int) -> LowRank:
    """The best approximation of at most that rank (Eckart and Young), balanced.

    Columns are sorted by singular value, so the first n of them are the best of rank n.
    """
    return svd(matrix, rank).balanced().to(_type(matrix))


def compress(matrix: LowRank, tolerance: float = 0.0) -> LowRank:
    """The same matrix by as few terms as it needs, balanced; exact up to rounding.

    Args:
        matrix: any stack of terms.
        tolerance: singular values up to it are given up as well.
    """
    return svd(matrix, tolerance=tolerance).balanced().to(_type(matrix))


def _above(values: Tensor, least: float, rank: int | None) -> int:
    """How many of the falling ``values`` count."""
    count = int((values > least).sum())
    return count if rank is None else min(rank, count)


def _rounding(matrix: Matrix) -> float:
    """What float64 arithmetic on the terms of ``matrix`` may be off by."""
    terms = matrix.size_of_terms() if isinstance(matrix, LowRank) else norm(matrix.double())
    return _ROUNDING * float(terms)


def _scaled(matrix: Matrix) -> tuple[Matrix, Tensor]:
    if isinstance(matrix, LowRank):
        return matrix.scaled()
    dense, exponent = scaled(matrix.double())
    return dense, exponent.view(())


def _orthonormal(columns: Tensor) -> Tensor:
    return qr(columns)[0]


def _type(matrix: Matrix) -> torch.dtype:
    return matrix.left.dtype if isinstance(matrix, LowRank) else matrix.dtype
