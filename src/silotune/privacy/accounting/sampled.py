"""Noise for many sampling rates: what ``calibrate`` finds for one, at one evaluation for each.

Two facts, the first of which docs/privacy.md proves:

- Any upper bound at (q', sigma, T) is one at (q, sigma, T') for q <= q' and T' <= T. So rates are
  rounded up to powers of 1.001, and what is certified there holds for every silo in between.
- sigma hardly bends over the rate, on logarithmic scales. It is searched at a few knots and
  interpolated, which saves work and is never trusted: nothing is returned without its own bound.

What a rate needs depends on nothing but the rate and the target: a silo that calibrates for itself
gets what a coordinator gets for thousands.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

from .accountant import COARSE, FINE, MAX_SIGMA, MIN_SIGMA, epsilon
from .calibration import LEAST_USED, MARGIN, calibrate, guess, least
from .charges import AnyCharge, Charge, Relation

STEP = 1.001
"""Rates are rounded up to powers of it: at most so much more noise."""

_KNOTS = 2.0**0.5  # from one to the next
_USED = 4  # knots that a cubic goes through
_AIM = 0.9995  # of the target, so that what interpolation is off seldom leads above it
_REPAIR = 1.0005
_GRIDS = (COARSE, 3e-4, FINE)


@dataclass(frozen=True)
class Target:
    """What every silo of a run must keep to, and all of its charge but rate and noise.

    Attributes:
        epsilon: above 0.
        delta: between 1e-10 and 1.
        relation: between neighbouring data sets.
        steps: of a silo that takes part in everything.
        grid_points: of its noise.
        besides: what the same records pay for other releases.
    """

    epsilon: float
    delta: float
    relation: Relation
    steps: int
    grid_points: int = 0
    besides: tuple[AnyCharge, ...] = ()

    def charge(self, rate: float, sigma: float) -> Charge:
        """Of the whole run."""
        return Charge(rate, sigma, self.steps, self.grid_points)

    def cost(self, rate: float, sigma: float, *, grid: float) -> float:
        """An upper bound on epsilon."""
        charges = [*self.besides, self.charge(rate, sigma)]
        return epsilon(charges, self.delta, relation=self.relation, grid=grid)


def certified(target: Target, rate: float) -> Charge:
    """A charge that keeps to the target, at a rate that is not below this one.

    Its noise is what ``calibrate`` would find, to 0.3 %; so whoever samples at ``rate`` with
    that noise, or does fewer steps, keeps to the target too.

    Args:
        target: of the run.
        rate: in (0, 1].

    Raises:
        ValueError: as ``calibrate``.
    """
    place = math.ceil(math.log(rate) / math.log(STEP) - 1e-9)
    rounded = max(min(STEP**place, 1.0), rate)
    return target.charge(rounded, _sigma(target, rounded))


@lru_cache(maxsize=2**15)
def _sigma(target: Target, rate: float) -> float:
    """The noise for a rate, with its own bound."""
    x = -math.log(rate) / math.log(_KNOTS)
    first = max(math.floor(x) - _USED // 2 + 1, 0)
    knots = [_knot(target, first + i) for i in range(_USED)]
    if None in knots:
        return _alone(target, rate)
    logs = [knot.log_sigma for knot in knots if knot]
    grid = min(knot.grid for knot in knots if knot)
    sigma = math.exp(_cubic(logs, x - first))
    most = target.epsilon * MARGIN
    for _ in range(8):
        found = target.cost(rate, sigma, grid=grid)
        if LEAST_USED * most <= found <= most:
            return sigma
        sigma *= _REPAIR if found > most else (found / most) ** 0.5
    return _alone(target, rate)


def _alone(target: Target, rate: float) -> float:
    return calibrate(
        target.epsilon,
        target.delta,
        lambda sigma: target.charge(rate, sigma),
        relation=target.relation,
        besides=target.besides,
    )


@dataclass(frozen=True)
class _Knot:
    log_sigma: float
    grid: float


@lru_cache(maxsize=2**10)
def _knot(target: Target, number: int) -> _Knot | None:
    """The noise for a rate of 2^(-number / 2), and the grid beyond which little is to be gained.

    None where there is none, or where it is the least that counts as noise.
    """
    rate = _KNOTS**-number
    most = target.epsilon * MARGIN * _AIM
    start = guess(target.charge(rate, 1.0), most, target.delta, target.relation)
    for grid in _GRIDS:
        sigma = least(partial(target.cost, rate, grid=grid), most, start)
        if sigma is None or sigma <= MIN_SIGMA or sigma >= MAX_SIGMA:
            return None
        if grid == FINE or target.cost(rate, sigma, grid=FINE) >= LEAST_USED * most:
            return _Knot(math.log(sigma), grid)
        start = sigma
    raise AssertionError("the last grid is the fine one")


def _cubic(values: Sequence[float], x: float) -> float:
    """Through values at 0, 1, 2 and 3 (Lagrange)."""
    total = 0.0
    for i, value in enumerate(values):
        others = [j for j in range(len(values)) if j != i]
        total += value * math.prod((x - j) / (i - j) for j in others)
    return total
