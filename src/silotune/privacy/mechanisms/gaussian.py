"""Gaussian noise that nobody can predict, in float64.

Privacy noise never comes from a generator made for simulation. ``standard_normal`` turns each
64-bit word of a secret stream into one number, by inversion of the normal distribution function:
one bit is the sign, 63 bits choose a probability u in (0, 1/2), and the number is Phi^-1(u).

How exact: u is the midpoint of one of 2^63 cells of equal probability, so the largest magnitude is
9.16, which a true normal exceeds with chance 2^-64. Two roundings are on top: u to float64's 53
digits, and Phi^-1, to 1e-15 of itself. What this cannot close is that sums of floats betray
low-order digits of what was hidden (Mironov 2012); ``discrete_gaussian`` does.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .secure_rng import Randomness

_CHUNK = 2**14  # numbers at a time: stays in the cache, and memory stays flat


def standard_normal(g: Randomness, n: int) -> Tensor:
    """Independent draws of N(0, 1): (n,) float64, on the CPU. The i-th is made of the i-th word.

    Args:
        g: read for ``n`` words.
        n: 0 or more.
    """
    out = torch.empty(n, dtype=torch.float64)
    for part in torch.split(out, _CHUNK):
        words = torch.from_numpy(g.words(len(part)).view(np.int64))
        signed = words.double().add_(0.5)  # in (-2^63, 2^63), and as likely as its negative
        torch.special.ndtri(signed.abs().mul_(2.0**-64), out=part).copysign_(signed)
    return out
