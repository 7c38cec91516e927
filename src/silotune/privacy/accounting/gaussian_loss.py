"""The privacy loss of one step of Gaussian noise, sampled or not.

Its delta at every point of a grid, and the lines between them ("connect the dots", Doroshenko et
al. 2022, arXiv 2207.04380). The outcomes where the loss passes the points are closed forms, found
all at once.

Of the worst pair of neighbours (``supported``), in units of what one record moves the sum by, one
data set gives N(0, sigma^2), and with chance q N(-1, sigma^2) instead (``remove`` and
``replace-one``); the other one gives N(0, sigma^2), and with chance q N(1, sigma^2) instead
(``add`` and ``replace-one``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from .privacy_loss import Masses, Points, PrivacyLoss

if TYPE_CHECKING:
    from .charges import Relation

Side = Literal["remove", "add", "replace"]
"""What the second data set does to the record that the first one has, or lacks."""

_LOG_CUT = -50.0  # logarithm of the chance of outcomes whose loss counts as infinite


def gaussian_loss(
    sigma: float, interval: float, *, sampling_rate: float = 1.0, relation: Relation = "add-remove"
) -> PrivacyLoss:
    """Of noise on a sum that one record moves by 1; an upper bound.

    Args:
        sigma: noise multiplier, above 0.
        interval: of the grid.
        sampling_rate: of Poisson sampling, above 0 and at most 1.
        relation: between neighbouring data sets; with replace-one the sum moves by 2.
    """

    def masses(side: Side) -> Masses:
        return Step(sigma, sampling_rate, side).masses(interval)

    if relation == "replace-one":
        return PrivacyLoss(masses("replace"))
    if sampling_rate == 1.0:
        return PrivacyLoss(masses("remove"))
    return PrivacyLoss(masses("remove"), masses("add"))


@dataclass(frozen=True)
class Step:
    """One step, and which of its data sets is held against the other.

    Attributes:
        sigma: noise multiplier.
        q: sampling rate.
        side: which.
    """

    sigma: float
    q: float
    side: Side

    def masses(self, interval: float) -> Masses:
        """Its loss on a grid."""
        low, high = self._ends()
        lowest, highest = math.floor(low / interval), math.ceil(high / interval)
        highest = max(highest, lowest + 1)
        deltas = self.deltas(interval * np.arange(lowest, highest + 1, dtype=np.float64))
        return Masses.connecting(interval, lowest, deltas)

    def deltas(self, epsilons: Points) -> Points:
        """(n,) the delta of every epsilon, each within about 1e-16.

        The outcome that splits the two data sets is where delta is largest, so what it is off by
        rounding counts squared.
        """
        if self.side == "replace":
            outcomes = _where_replaced(epsilons, self.sigma, self.q)
        elif self.side == "remove":
            outcomes = _where_removed(epsilons, self.sigma, self.q)
        else:
            outcomes = -_where_removed(-epsilons, self.sigma, self.q)
        below = np.exp(epsilons + self._log_below(outcomes))
        found: Points = np.clip(self._below(outcomes) - below, 0.0, 1.0)
        return found

    def _below(self, x: Points) -> Points:
        """Chance of an outcome of at most x, of the first data set."""
        from scipy.special import ndtr

        if self.side == "add":
            still: Points = ndtr(x / self.sigma)
            return still
        moved: Points = ndtr((x + 1.0) / self.sigma)
        if self.q < 1.0:
            moved = self.q * moved + (1.0 - self.q) * ndtr(x / self.sigma)
        return moved

    def _log_below(self, x: Points) -> Points:
        """The logarithm of that of the second one."""
        from scipy.special import log_ndtr

        if self.side == "remove":
            still: Points = log_ndtr(x / self.sigma)
            return still
        moved: Points = log_ndtr((x - 1.0) / self.sigma)
        if self.q < 1.0:
            still = math.log1p(-self.q) + log_ndtr(x / self.sigma)
            moved = np.logaddexp(still, math.log(self.q) + moved)
        return moved

    def _ends(self) -> tuple[float, float]:
        """Losses between which all but exp(-50) of the outcomes are."""
        from scipy.special import ndtri

        far = -self.sigma * float(ndtri(0.5 * math.exp(_LOG_CUT)))
        left, right = (-far, far + 1.0) if self.side == "add" else (-far - 1.0, far)
        return self._loss(right), self._loss(left)

    def _loss(self, x: float) -> float:
        removed, added = self._removed(x), -self._removed(-x)
        return {"remove": removed, "add": added, "replace": removed + added}[self.side]

    def _removed(self, x: float) -> float:
        plain = (-0.5 - x) / self.sigma**2
        if self.q == 1.0:
            return plain
        return float(np.logaddexp(math.log1p(-self.q), math.log(self.q) + plain))


def _where_removed(losses: Points, sigma: float, q: float) -> Points:
    """The largest outcome that loses as much; infinity where all do."""
    if q < 1.0:
        with np.errstate(over="ignore", divide="ignore"):
            least = np.minimum((1.0 - q) * np.exp(-losses), 1.0)
            losses = losses - math.log(q) + np.log1p(-least)
    return -0.5 - sigma**2 * losses


def _where_replaced(losses: Points, sigma: float, q: float) -> Points:
    """By asinh(a sinh(e / 2)), a = exp(1 / 2 sigma^2) (1 - q) / q, in logarithms."""
    if q == 1.0:
        return -(sigma**2) * losses / 2
    half = np.abs(losses) / 2
    with np.errstate(divide="ignore"):
        log_sinh = half + np.log(-np.expm1(-2 * half)) - math.log(2)
    large = 0.5 / sigma**2 + math.log1p(-q) - math.log(q) + log_sinh
    asinh = np.logaddexp(large, np.logaddexp(2 * large, 0.0) / 2)
    outcomes: Points = -(sigma**2) * np.sign(losses) * (asinh + half)
    return outcomes
