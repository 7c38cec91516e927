"""Gaussian noise from the operating system.

Privacy noise must be unpredictable, so it never comes from a seeded generator, least of all from
the experiment's seed. Bytes of ``os.urandom`` become uniforms of 53 bits, those become normals
(Box and Muller 1958), in float64 and scaled there; only the result is rounded to float32. The
finest uniform limits a draw to 8.6 standard deviations, which one in 10^17 would exceed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_CHUNK = 2**14  # pairs at a time: stays in the cache, and memory stays flat


def gaussian(shape: Sequence[int], std: float) -> Tensor:
    """Independent draws of N(0, std^2), float32, on the CPU.

    Args:
        shape: of the result.
        std: standard deviation, in the units of what it is added to; 0 or more.

    Raises:
        ValueError: if ``std`` is negative or not finite.
    """
    if not 0.0 <= std < math.inf:
        raise ValueError(f"noise needs a finite standard deviation of 0 or more, not {std}")
    out = torch.empty(tuple(shape), dtype=torch.float32)
    for part in torch.split(out.view(-1), 2 * _CHUNK):
        part.copy_(_normals(len(part)).mul_(std))
    return out


def _normals(n: int) -> Tensor:
    """``n`` standard normals, float64."""
    half = (n + 1) // 2
    u, v = _uniforms(2 * half).view(2, half)
    radius = u.log_().mul_(-2.0).sqrt_()
    angle = v.mul_(2.0 * math.pi)
    return torch.cat([radius * angle.cos(), radius * angle.sin()])[:n]


def _uniforms(n: int) -> Tensor:
    """``n`` multiples of 2^-53 in (0, 1], each equally likely, float64."""
    bits = np.frombuffer(os.urandom(8 * n), dtype=np.uint64) >> np.uint64(11)
    return torch.from_numpy(bits.astype(np.float64)).add_(1.0).mul_(2.0**-53)
