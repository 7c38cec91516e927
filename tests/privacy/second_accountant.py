"""A second accountant: epsilon between two bounds, by privacy loss random variables.

Gopi, Lee, Wutschitz 2021 (arXiv 2106.02848), written from the paper with numpy and scipy alone; it
shares no line with dp-accounting, and its errors go another way. The loss of a step is
Y = log(p(x) / r(x)), x ~ p, and delta(epsilon) = E (1 - exp(epsilon - Y_1 - ... - Y_k))_+.

Every Y is rounded to the nearest point of a grid of step h and moved so that its mean is kept. The
error of a step then has mean 0 and lies in an interval of length h, so by Hoeffding that of k
steps exceeds h sqrt(k / 2 log(2 / eta)) with chance eta at most. What is cut off (losses beyond
the domain), wraps round in the FFT (Chernoff) or is its rounding is added to eta. Therefore

    delta'(epsilon + error) - eta <= delta(epsilon) <= delta'(epsilon - error) + eta,

where delta' is that of the rounded losses. A finer grid brings the bounds as near as one likes.

Units: sigma in units of what one record moves, epsilon and delta are pure numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import binom, norm

Array = NDArray[np.float64]
Line = Callable[[Array], Array]

MOST_POINTS = 2**23
FLOATS = 1e-15  # what rounding does to one P(Y <= y), which all later sums of it share


@dataclass(frozen=True)
class Loss:
    """The distribution of one privacy loss.

    Attributes:
        below: y -> P(Y <= y).
        mean: E Y.
    """

    below: Line
    mean: float


class Pair(NamedTuple):
    """The losses of two data sets against each other: x from the one, and x from the other."""

    forth: Loss
    back: Loss


class Bounds(NamedTuple):
    """Epsilon lies between them."""

    lower: float
    upper: float


Composition = Sequence[tuple[Pair, int]]
"""Steps, and how many there are of each."""


def gaussian(mu: float) -> Pair:
    """N(mu, 1) against N(0, 1): Y ~ N(mu^2 / 2, mu^2) either way."""
    loss = Loss(lambda y: norm.cdf(y, mu**2 / 2, mu), mu**2 / 2)
    return Pair(loss, loss)


def poisson(q: float, sigma: float) -> Pair:
    """(1-q) N(0, sigma^2) + q N(1, sigma^2) against N(0, sigma^2): add-remove and zero-out."""

    def loss(x: Array) -> Array:
        return np.logaddexp(math.log1p(-q), math.log(q) + (2 * x - 1) / (2 * sigma**2))

    def place(y: Array) -> Array:
        """Where the loss, which grows with x, is y."""
        with np.errstate(divide="ignore", invalid="ignore"):
            excess = np.expm1(y) + q
            found = sigma**2 * np.log(excess / q) + 0.5
        return np.where(excess > 0, found, -np.inf)

    if q == 1.0:
        return gaussian(1 / sigma)
    means = (1 - q, 0.0), (q, 1.0)
    return _pair(loss, place, means, ((1.0, 0.0),), sigma)


def replaced(q: float, sigma: float) -> Pair:
    """(1-q) N(0, sigma^2) + q N(1, sigma^2) against the same with -1: replace-one."""
    if q == 1.0:
        return gaussian(2 / sigma)
    there = q * math.exp(-0.5 / sigma**2) / (1 - q)

    def loss(x: Array) -> Array:
        return np.logaddexp(0, math.log(there) + x / sigma**2) - np.logaddexp(
            0, math.log(there) - x / sigma**2
        )

    def place(y: Array) -> Array:
        return sigma**2 * (y / 2 + np.arcsinh(np.sinh(y / 2) / there))

    return _pair(loss, place, ((1 - q, 0.0), (q, 1.0)), ((1 - q, 0.0), (q, -1.0)), sigma)


def truncated(q: float, sigma: float, largest: int, places: int) -> Pair:
    """A Poisson sample cut to ``largest``, zero-out (arXiv 2508.15089, section 2).

    Whether the others alone fill the sample is told to the adversary. If they do not, the step is
    a Poisson step; if they do, a record that comes in throws another one out, which moves the
    sum by twice as much, and it comes in with the chance that is left.
    """
    full = sum(binom.pmf(k, places - 1, q) for k in range(largest, places))
    if full == 0.0:
        return poisson(q, sigma)
    stays = sum(binom.pmf(k, places - 1, q) * q * largest / (k + 1) for k in range(largest, places))
    rare, usual = replaced(stays / full, sigma / 2), poisson(q, sigma)
    return Pair(
        *(_mixture(full, one, other) for one, other in zip(rare, usual, strict=True)),
    )


def epsilon_bounds(steps: Composition, delta: float, error: float) -> Bounds:
    """Epsilon of everything together, in the worse of both directions.

    Args:
        steps: what composes, in any order.
        delta: of the guarantee.
        error: what rounding to the grid may add up to.

    Raises:
        ValueError: if that takes more than 2^23 points.
    """
    directions = [[(pair[i], times) for pair, times in steps] for i in range(2)]
    found = [_bounds(losses, delta, error) for losses in directions]
    return Bounds(max(b.lower for b in found), max(b.upper for b in found))


def _bounds(losses: Sequence[tuple[Loss, int]], delta: float, error: float) -> Bounds:
    eta = 1e-4 * delta
    steps = sum(times for _, times in losses)
    h = error / math.sqrt(steps / 2 * math.log(2 / eta))
    reach = 0.25
    while True:
        points = 2 ** math.ceil(math.log2(2 * reach / h))
        if points > MOST_POINTS:
            raise ValueError(f"{points} points; allow a larger error than {error}")
        total, lost = _composed(losses, h, points)
        if lost < eta:
            break
        reach *= 2
    slack = 2 * eta + steps * FLOATS
    y = h * (np.arange(points) - points // 2) + total.shift

    likely, weighed = (_beyond(total.chance * weights) for weights in (1.0, np.exp(-y)))

    def excess(epsilon: float) -> float:
        above = np.searchsorted(y, epsilon, side="right")
        return float(likely[above] - math.exp(epsilon) * weighed[above])

    def solved(delta: float) -> float:
        if excess(0.0) <= delta:
            return 0.0
        return float(brentq(lambda e: excess(e) - delta, 0.0, y[-1], xtol=1e-9))

    return Bounds(max(solved(delta + slack) - error, 0.0), solved(delta - slack) + error)


def _beyond(numbers: Array) -> Array:
    """Sums from each to the last, which is nothing after it; the smallest come first."""
    return np.append(np.cumsum(numbers[::-1])[::-1], 0.0)


class _Total(NamedTuple):
    chance: Array  # of the points -n/2 ... n/2 - 1 of the grid
    shift: float  # what all means together were moved by


def _composed(losses: Sequence[tuple[Loss, int]], h: float, points: int) -> tuple[_Total, float]:
    """The sum of all losses, and what was lost of it at the ends."""
    y = h * (np.arange(points) - points // 2)
    edges = h * (np.arange(points + 1) - points // 2 - 0.5)
    spectrum, shift, lost = np.ones(points // 2 + 1, dtype=complex), 0.0, 0.0
    reach = h * points / 2
    orders = np.outer([-1, 1], [16, 32, 64, 128]).ravel() / reach
    moments = np.zeros(len(orders))
    for loss, times in losses:
        chance = np.diff(loss.below(edges))
        lost += times * max(1.0 - float(chance.sum()), 0.0)
        shift += times * (loss.mean - float(chance @ y))
        spectrum *= np.fft.rfft(np.fft.ifftshift(chance)) ** times
        with np.errstate(divide="ignore"):
            logs = np.log(chance)
        moments += times * np.array([_log_moment(logs, y, order) for order in orders])
    ends = moments - np.abs(orders) * reach  # Chernoff: log P(beyond the end on the order's side)
    lost += sum(math.exp(min(ends[side].min(), 0.0)) for side in (orders < 0, orders > 0))
    chance = np.fft.fftshift(np.fft.irfft(spectrum, points))
    noise = -float(chance[chance < 0].sum())  # of the FFT: as much below zero as above it
    return _Total(chance, shift), lost + 2 * noise


def _log_moment(logs: Array, y: Array, order: float) -> float:
    """log E exp(order Y), of logarithms of chances."""
    terms = logs + order * y
    most = float(terms.max())
    return most + math.log(np.exp(terms - most).sum())


Mixture = Sequence[tuple[float, float]]
"""Weights and means of Gaussians."""


def _pair(loss: Line, place: Line, p: Mixture, r: Mixture, sigma: float) -> Pair:
    """Of two mixtures with one sigma whose log-ratio grows with x."""

    def below(mixture: Mixture, x: Array) -> Array:
        return sum(weight * norm.cdf(x, mean, sigma) for weight, mean in mixture)

    def above(mixture: Mixture, x: Array) -> Array:
        return sum(weight * norm.sf(x, mean, sigma) for weight, mean in mixture)

    x = np.linspace(-14 * sigma - 1, 14 * sigma + 1, 40_001)

    def mean(mixture: Mixture) -> float:
        """By the trapezoidal rule, which is exact to rounding for such integrands."""
        density = sum(weight * norm.pdf(x, mean, sigma) for weight, mean in mixture)
        return float((density * loss(x)).sum() * (x[1] - x[0]))

    return Pair(
        forth=Loss(lambda y: below(p, place(y)), mean(p)),
        back=Loss(lambda y: above(r, place(-y)), -mean(r)),
    )


def _mixture(weight: float, one: Loss, other: Loss) -> Loss:
    return Loss(
        lambda y: weight * one.below(y) + (1 - weight) * other.below(y),
        weight * one.mean + (1 - weight) * other.mean,
    )
