"""The noise that hides one record's part of a sum: three kinds, each a frozen public value.

A kind says on which grid the records' parts must lie before they are added, by how much one
record can then move the sum, and gives the noise itself. ``multiplier`` is always sigma, the
standard deviation in units of that bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .base import NoiseSource, NoiseState, RoundRandomness
from .discrete_gaussian import discrete_gaussian
from .gaussian import standard_normal
from .matrix_factorization import CorrelatedStream
from .secure_rng import Randomness


@dataclass(frozen=True)
class Gaussian:
    """N(0, sigma^2 bound^2) in every coordinate, independent over steps, in float64."""

    grid_points: ClassVar[int] = 0

    multiplier: float

    def grid(self, bound: float) -> float:
        """No rounding."""
        return 0.0

    def deviation(self, bound: float, numbers: int) -> float:
        """Standard deviation in each of so many coordinates."""
        return self.multiplier * bound

    def source(self, g: Randomness, start: int) -> NoiseSource:
        """Fresh noise for every step."""
        return _Independent(self, g)


@dataclass(frozen=True)
class Discrete:
    """The discrete Gaussian on a grid (Canonne, Kamath, Steinke 2020, arXiv 2004.00010).

    Records' parts are rounded to the grid and added without error, and the noise lies on the same
    grid, so the low-order bits of what is released say nothing of the records: attacks on
    floating-point noise (Mironov 2012) have nothing to hold on to. Rounding P coordinates moves
    a record's part by at most sqrt(P) grid / 2, which the bound takes in. What stays open: the last
    bits of a record's own gradient may depend on the shape of the batch it is computed in.

    Attributes:
        grid_points: within one standard deviation, at least. It is part of what is charged.
    """

    grid_points: ClassVar[int] = 2**20

    multiplier: float

    def grid(self, bound: float) -> float:
        """The largest power of two that leaves ``grid_points`` to sigma bound."""
        return 2.0 ** math.floor(math.log2(self.multiplier * bound / self.grid_points))

    def deviation(self, bound: float, numbers: int) -> float:
        """Standard deviation in each of so many coordinates: of the bound with all rounding."""
        return self.multiplier * (bound + math.sqrt(numbers) * self.grid(bound) / 2)

    def source(self, g: Randomness, start: int) -> NoiseSource:
        """Fresh noise for every step."""
        return _OnGrid(self, g)


@dataclass(frozen=True)
class Correlated:
    """Noise of which much cancels between steps: for runs without secret coins.

    How it is made is told in ``matrix_factorization``.

    Attributes:
        multiplier: sigma of the independent noise that is filtered.
        bands: how many steps the filter reaches back.
    """

    multiplier: float
    bands: int

    def grid(self, bound: float) -> float:
        """No rounding."""
        return 0.0

    def source(self, g: Randomness, start: int) -> NoiseSource:
        """Continues the run's one stream at step ``start``."""
        return CorrelatedStream(g, self.bands, self.multiplier, start)


Noise = Gaussian | Discrete | Correlated


def drawn(
    noise: Noise, insecure_seed: int | None, round: int, past: NoiseState | None
) -> RoundRandomness:
    """The draws of one round, under a fresh secret key; under the run's own for correlated noise.

    Args:
        noise: its kind.
        insecure_seed: draw from this seed and from ``round`` instead. NOT private.
        round: any number that belongs to this round alone.
        past: needed for correlated noise, which goes on where it ended.

    Raises:
        ValueError: if there is no past where one is needed.
    """
    seeded = None if insecure_seed is None else Randomness.insecure(insecure_seed)
    if isinstance(noise, Correlated):
        if past is None:
            raise ValueError("correlated noise needs somebody who remembers its past steps")
        whole = seeded or Randomness(past.key)
        source = noise.source(whole.fork("noise"), past.steps)
        return RoundRandomness(whole.fork("coins"), source, past.steps)
    g = seeded.fork(round) if seeded else Randomness.secret()
    return RoundRandomness(g.fork("coins"), noise.source(g.fork("noise"), 0), 0)


@dataclass(frozen=True)
class NoNoise:
    """No noise."""

    def draw(self, bound: float, numbers: int) -> Tensor:
        """Zeros."""
        return torch.zeros(numbers, dtype=torch.float64)


@dataclass(frozen=True)
class _Independent:
    noise: Gaussian
    g: Randomness

    def draw(self, bound: float, numbers: int) -> Tensor:
        return standard_normal(self.g, numbers).mul_(self.noise.deviation(bound, numbers))


@dataclass(frozen=True)
class _OnGrid:
    noise: Discrete
    g: Randomness

    def draw(self, bound: float, numbers: int) -> Tensor:
        grid = self.noise.grid(bound)
        drawn = discrete_gaussian(self.g, numbers, self.noise.deviation(bound, numbers) / grid)
        return drawn.double().mul_(grid)
