"""Privacy loss distributions on a grid: how they compose, and the epsilon that follows.

The algorithms are dp-accounting's (Doroshenko et al. 2022, arXiv 2207.04380), whose classes answer
to the same names (``referee``); here they work on whole arrays, where the library goes through
points one after the other. A test holds both against each other.

    delta(epsilon) = infinite + sum_l P(l) (1 - exp(epsilon - l))_+

Whatever is cut off counts as an infinite loss, so that every figure stays an upper bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

TAIL = 1e-15
"""Of the chances, what a composition may cut off."""

_RISE = 1e-12  # of deltas that ought to fall: more is no rounding

_ORDERS = 20  # of the moments that bound the tails of a sum


@dataclass(frozen=True, eq=False)
class Masses:
    """The loss of one data set against the other.

    Attributes:
        interval: of the grid.
        lowest: number of the grid point that the first chance is of.
        chances: (n,) of the losses interval * (lowest, lowest + 1, ...).
        infinite: chance of an infinite loss, or more.
    """

    interval: float
    lowest: int
    chances: Points
    infinite: float

    @classmethod
    def connecting(cls, interval: float, lowest: int, deltas: Points) -> Masses:
        """The least loss on the grid whose delta is nowhere below the lines between these.

        Args:
            interval: of the grid.
            lowest: number of the first grid point.
            deltas: (n,) of the epsilons interval * (lowest, lowest + 1, ...), n at least 2.

        Raises:
            ArithmeticError: if the deltas are none.
        """
        steps = np.diff(deltas)
        if not (np.all(deltas >= 0.0) and np.all(deltas <= 1.0) and np.all(steps <= _RISE)):
            raise ArithmeticError("deltas of a mechanism lie between 0 and 1, and fall")
        deltas = np.minimum.accumulate(deltas)
        steps = np.diff(deltas)
        ratio, gain = math.exp(interval), math.expm1(interval)
        chances = np.empty_like(deltas)
        chances[0] = 1.0 - deltas[0] + steps[0] / gain
        chances[1:-1] = (steps[1:] - steps[:-1] * ratio) / gain
        chances[-1] = steps[-1] / math.expm1(-interval)
        return cls(interval, lowest, np.maximum(chances, 0.0), float(deltas[-1]))

    def self_compose(self, times: int) -> Masses:
        """Of ``times`` such losses together, by FFT."""
        from scipy.fft import irfft, next_fast_len, rfft

        low, high = _reach(self.chances, times)
        size = next_fast_len(max(high - low + 1, len(self.chances)), real=True)
        whole = irfft(_power(rfft(self.chances, size), times), size)
        infinite = TAIL - math.expm1(times * math.log1p(-self.infinite))
        chances = np.roll(whole, -low)[: high - low + 1]  # sums lie on a circle
        return Masses(self.interval, times * self.lowest + low, chances, infinite)

    def compose(self, other: Masses) -> Masses:
        """Of both together, by FFT."""
        chances = _convolved(self.chances, other.chances)
        left = int(np.argmax(np.cumsum(chances) > TAIL / 2))
        right = len(chances) - int(np.argmax(np.cumsum(chances[::-1]) > TAIL / 2))
        kept = chances[left : max(right, left + 1)]
        kept[0] += chances[:left].sum()
        infinite = self.infinite + other.infinite - self.infinite * other.infinite
        infinite += float(chances[left + len(kept) :].sum())
        return Masses(self.interval, self.lowest + other.lowest + left, kept, infinite)

    def compute_mixture(self, other: Masses, weight: float) -> Masses:
        """This loss with chance ``weight``, else the other one."""
        lowest = min(self.lowest, other.lowest)
        highest = max(one.lowest + len(one.chances) for one in (self, other))
        chances = np.zeros(highest - lowest)
        for one, share in ((self, weight), (other, 1.0 - weight)):
            start = one.lowest - lowest
            chances[start : start + len(one.chances)] += share * one.chances
        infinite = weight * self.infinite + (1.0 - weight) * other.infinite
        return Masses(self.interval, lowest, chances, infinite)

    def get_epsilon_for_delta(self, delta: float) -> float:
        """The least epsilon of 0 or more whose delta is at most this one; infinite without any."""
        if self.infinite > delta:
            return math.inf
        first = max(1 - self.lowest, 0)  # of the positive losses; others give nothing at epsilon 0
        falling = self.chances[first:][::-1]
        most = self.lowest + len(self.chances) - 1
        losses = self.interval * (most - np.arange(len(falling), dtype=np.float64))
        above = self.infinite + _sums(falling)
        weighed = _sums(falling * np.exp(-losses))
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            epsilons = np.log((above - delta) / weighed)  # where those losses alone were above
        within = (above[:-1] > delta) & (weighed[:-1] > 0.0) & (epsilons[:-1] >= losses)
        huge = (above[1:] >= delta) & (weighed[1:] == 0.0)  # exp(-loss) is 0 in floats
        found = np.flatnonzero(within | huge)[:1]
        if len(found) and not within[found[0]]:
            return float(losses[found[0]])
        last = int(found[0]) if len(found) else len(losses)
        if above[last] <= weighed[last] + delta:
            return 0.0
        return float(epsilons[last])


@dataclass(frozen=True, eq=False)
class PrivacyLoss:
    """Of two neighbours against each other, either way.

    Attributes:
        remove: of the data set that has more.
        add: of the other one; None where it is the same.
    """

    remove: Masses
    add: Masses | None = None

    def self_compose(self, times: int) -> PrivacyLoss:
        """Of ``times`` such mechanisms together."""
        add = self.add.self_compose(times) if self.add else None
        return PrivacyLoss(self.remove.self_compose(times), add)

    def compose(self, other: PrivacyLoss) -> PrivacyLoss:
        """Of both mechanisms together."""
        remove = self.remove.compose(other.remove)
        if self.add is None and other.add is None:
            return PrivacyLoss(remove)
        return PrivacyLoss(remove, self._added.compose(other._added))

    def compute_mixture(self, other: PrivacyLoss, weight: float) -> PrivacyLoss:
        """Of this mechanism with chance ``weight``, else of the other; which one, is told."""
        remove = self.remove.compute_mixture(other.remove, weight)
        if self.add is None and other.add is None:
            return PrivacyLoss(remove)
        return PrivacyLoss(remove, self._added.compute_mixture(other._added, weight))

    def get_epsilon_for_delta(self, delta: float) -> float:
        """An upper bound on epsilon at ``delta``; infinite where there is none."""
        found = self.remove.get_epsilon_for_delta(delta)
        return found if self.add is None else max(found, self.add.get_epsilon_for_delta(delta))

    @property
    def _added(self) -> Masses:
        return self.remove if self.add is None else self.add


def _sums(numbers: Points) -> Points:
    """(n + 1,) of the first 0, 1, ..., n."""
    found = np.zeros(len(numbers) + 1)
    np.cumsum(numbers, out=found[1:])
    return found


def _reach(chances: Points, times: int) -> tuple[int, int]:
    """Between which sums of ``times`` grid points all but ``TAIL`` of the chances lie (Chernoff).

    A moment of order k is one of order k - 1 with every chance multiplied once more.
    """
    low, high, n = 0, (len(chances) - 1) * times, len(chances)
    slack, unit = math.log(2 / TAIL), np.exp(np.arange(n) / n)
    for k, moment in enumerate(_moments(chances, unit), start=1):
        high = min(high, math.ceil((times * math.log(moment) + slack) * n / k))
    for k, moment in enumerate(_moments(chances, 1 / unit), start=1):
        low = max(low, math.floor(-(times * math.log(moment) + slack) * n / k))
    return low, high


def _moments(chances: Points, unit: Points) -> Iterator[float]:
    weighed = chances.copy()
    for _ in range(_ORDERS):
        weighed *= unit
        yield float(weighed.sum())


def _convolved(left: Points, right: Points) -> Points:
    """(n + m - 1,), two or more each: the bits of scipy.signal, which takes a second to import."""
    from scipy.fft import irfft, next_fast_len, rfft

    size = len(left) + len(right) - 1
    wide = next_fast_len(size, real=True)
    found: Points = irfft(rfft(left, wide) * rfft(right, wide), wide)[:size]
    return found


def _power(numbers: NDArray[np.complex128], times: int) -> NDArray[np.complex128]:
    """By squaring: ten times as fast as numpy's, and no less exact."""
    found = None
    while True:
        if times & 1:
            found = numbers if found is None else found * numbers
        times >>= 1
        if not times:
            assert found is not None, "nothing is composed no times"
            return found
        numbers = numbers * numbers
