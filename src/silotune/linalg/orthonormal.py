"""Orthonormal rows that come out bit for bit the same on every machine.

A QR from a linear algebra library differs between processors in the last bits, and a frozen
factor that travels as seed + SHA-256 must not. So the start is uniform (drawn without
transcendental functions), and Gram-Schmidt takes its inner products with correctly rounded sums.
"""

import math

import torch
from torch import Tensor


def orthonormal_rows(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """A random (rows, columns) float32 matrix Q with Q Q^T = I.

    Args:
        rows: the rank r; at most ``columns``.
        columns: the input features.
        generator: a CPU generator.

    Raises:
        ValueError: if there are more rows than columns.
    """
    if rows > columns:
        raise ValueError(f"r = {rows} orthonormal rows do not fit into {columns} input features")
    q = torch.rand(rows, columns, generator=generator, dtype=torch.float64) * 2 - 1
    for i in range(rows):
        for _ in range(2):  # twice is enough (Kahan, Parlett)
            for j in range(i):
                q[i] -= _dot(q[i], q[j]) * q[j]
        q[i] /= math.sqrt(_dot(q[i], q[i]))
    return q.float()


def _dot(x: Tensor, y: Tensor) -> float:
    return math.fsum((x * y).tolist())
