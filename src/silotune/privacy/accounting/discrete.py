"""Discrete Gaussian noise is continuous Gaussian noise that was rounded, and costs as much.

Peikert 2010 (Crypto, theorem 3.1), in one dimension. In grid points: x is an integer, R_s rounds a
real z to y with probability proportional to exp(-(y - z)^2 / 2 s^2), and e(s) is
2 sum_k exp(-2 pi^2 s^2 k^2). Then x + Z(sigma), Z the discrete Gaussian, and
R_s(x + N(0, sigma^2 - s^2)) give every y the same probability, but for a factor between exp(-h)
and exp(h), where h = e(sigma) - log(1 - e(s)). Rounding is post-processing, and a factor for every
outcome stays one under mixtures (sampling) and multiplies under adaptive composition. So T steps
of d coordinates that are (epsilon, delta)-private with N(0, sigma^2 - s^2) are
(epsilon + 2 T d h, exp(T d h) delta)-private with Z(sigma), under any neighbouring relation. The
proof is in docs/privacy.md.

With s = 4 points, h is below 1e-135: what T d makes of it is far below ``SLACK``, and on a grid of
2^20 points to sigma the continuous noise is smaller than the discrete by 7e-12 of itself.
"""

from __future__ import annotations

import math
from dataclasses import replace

from .charges import AnyCharge, CorrelatedCharge

SLACK = 1e-9
"""Added to epsilon, and taken off delta relative to it: more than T d h makes of them."""

_ROUNDING = 4.0  # s, in grid points


def is_discrete(charge: AnyCharge) -> bool:
    """Whether the noise lies on a grid."""
    return not isinstance(charge, CorrelatedCharge) and charge.grid_points > 0


def continuous(charge: AnyCharge) -> AnyCharge:
    """The same with continuous noise, of which the noise of ``charge`` is a rounding.

    A charge whose noise lies on no grid is its own.
    """
    if isinstance(charge, CorrelatedCharge) or not charge.grid_points:
        return charge
    left = math.sqrt(1.0 - (_ROUNDING / charge.grid_points) ** 2)
    return replace(charge, noise_multiplier=charge.noise_multiplier * left, grid_points=0)
