"""The only door to decompositions: any finite matrix passes; what does not is told in words.

LAPACK's QR, SVD and eigenvalues square what they are given, so that entries of 1e200 overflow and
entries of 1e-200 vanish, on some processors and not on others. Here a matrix of extreme size is
first multiplied by a power of two, which is exact, and its values are multiplied back. Matrices of
ordinary size pass as they are, bit for bit.

Shapes: ... = any stack of matrices, m, n = rows and columns, k = min(m, n).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_BIAS, _MANTISSA = 1023, 52  # of float64


class NumericalError(ValueError):
    """Numbers that no decomposition can take: not finite, or too large for their type."""


def scaled(x: Tensor) -> tuple[Tensor, Tensor]:
    """``x = y 2^e`` with y of ordinary size.

    Args:
        x: (..., m, n), float32 or float64.

    Returns:
        y (..., m, n) and e (..., 1, 1), which is 0 where x is of ordinary size itself.

    Raises:
        NumericalError: if an entry is not finite.
    """
    if not x.numel():
        return x, x.new_zeros((*x.shape[:-2], 1, 1), dtype=torch.int64)
    largest = x.abs().amax(dim=(-2, -1), keepdim=True)
    if not largest.isfinite().all():
        raise NumericalError("a matrix holds numbers that are not finite")
    exponent = torch.frexp(largest).exponent.long()
    ordinary = exponent.abs() <= _exponent_of_largest(x.dtype) // 4
    exponent = exponent.where(~ordinary & (largest > 0), 0)
    return times_power(x, -exponent), exponent


def times_power(x: Tensor, exponent: Tensor) -> Tensor:
    """``x 2^e``, exact unless the result leaves the range of its type.

    Args:
        x: of any shape.
        exponent: integers that broadcast against x, at most 2,000 in size.
    """
    if not exponent.any():
        return x
    half = exponent // 2  # 2^e itself may be out of range where x 2^e is not
    return x * _power(half).to(x.dtype) * _power(exponent - half).to(x.dtype)


def qr(x: Tensor) -> tuple[Tensor, Tensor]:
    """Q (..., m, k) with orthonormal columns and R (..., k, n) upper triangular, x = Q R."""
    y, exponent = scaled(x)
    q, r = _tried(torch.linalg.qr, y)
    return q, finite(times_power(r, exponent))


def triangle(x: Tensor) -> Tensor:
    """R (..., k, n) of the QR decomposition alone."""
    y, exponent = scaled(x)
    return finite(times_power(_tried(torch.linalg.qr, y, mode="r")[1], exponent))


def dense_svd(x: Tensor, *, full: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """U (..., m, k), falling singular values (..., k), V^T (..., k, n).

    Args:
        x: (..., m, n).
        full: U (..., m, m) and V^T (..., n, n), with bases of what x does not reach.
    """
    y, exponent = scaled(x)
    u, s, vh = _tried(torch.linalg.svd, y, full_matrices=full)
    return u, finite(times_power(s, exponent.squeeze(-1))), vh


def eigh(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rising eigenvalues (..., n) and eigenvectors (..., n, n), as columns, of symmetric x."""
    y, exponent = scaled(x)
    values, vectors = _tried(torch.linalg.eigh, y)
    return finite(times_power(values, exponent.squeeze(-1))), vectors


def eigvalsh(x: Tensor) -> Tensor:
    """Rising eigenvalues (..., n) of symmetric x."""
    y, exponent = scaled(x)
    return finite(times_power(_tried(torch.linalg.eigvalsh, y), exponent.squeeze(-1)))


def pinv(x: Tensor, rtol: float | None = None, *, hermitian: bool = False) -> Tensor:
    """The pseudo-inverse (..., n, m).

    Args:
        x: (..., m, n).
        rtol: singular values below this part of the largest count as 0; None = torch's own.
        hermitian: x is symmetric.
    """
    y, exponent = scaled(x)
    inverse: Tensor = _tried(torch.linalg.pinv, y, rtol=rtol, hermitian=hermitian)
    return finite(times_power(inverse, -exponent))


def vector_norm(x: Tensor, dim: int | None = None) -> Tensor:
    """The L2 norm, over all of x (m, n) or along ``dim``; infinite only if no number is as large.

    Raises:
        NumericalError: if an entry is not finite.
    """
    y, exponent = scaled(x)
    norm: Tensor = torch.linalg.vector_norm(y, dim=dim)
    return times_power(norm, exponent.view(()))


def finite(values: Tensor) -> Tensor:
    """The values themselves.

    Raises:
        NumericalError: if their type cannot hold them.
    """
    if not values.isfinite().all():
        raise NumericalError(f"a matrix is too large for {values.dtype}")
    return values


def _tried(decompose: Callable[..., Any], x: Tensor, **options: object) -> Any:
    try:
        return decompose(x, **options)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise NumericalError(f"a matrix could not be decomposed: {error}") from error


def _exponent_of_largest(dtype: torch.dtype) -> int:
    """128 for float32, 1024 for float64."""
    return int(torch.frexp(torch.tensor(torch.finfo(dtype).max, dtype=torch.float64)).exponent)


def _power(exponent: Tensor) -> Tensor:
    """2^e in float64, -1022 <= e <= 1023, by its bits: no library's rounding."""
    return ((exponent + _BIAS) << _MANTISSA).view(torch.float64)
