"""Checks: exact tests of what is claimed, and the false alarm that all of them together may give.

A check is the probability, under the mechanism that is claimed, of a result at least as bad as the
one that was seen. The tests here hold for any number of draws: they are conditional on one of the
two things compared, so that no limit theorem is needed. An audit fails if any of its checks is less
likely than its share of ``FALSE_ALARM`` (Bonferroni), so a correct mechanism fails one audit in a
million, however many checks there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.special import ndtr
from scipy.stats import binom, chi2, kstest

FALSE_ALARM = 1e-6
"""Of a whole audit, at most."""

PARTS = 12
"""Groups of checks that an audit has at most; each has an equal share of the false alarm."""

FAR = 3.0
"""Standard deviations from which on a number counts as far out."""

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Check(NamedTuple):
    """One comparison.

    Attributes:
        what: was compared, in words.
        chance: of a result as bad as this, if the claim is true.
    """

    what: str
    chance: float


def share(checks: int) -> float:
    """The chance below which one check of a group fails.

    Args:
        checks: of the group.
    """
    return FALSE_ALARM / PARTS / max(1, checks)


def failed(checks: Sequence[Check]) -> list[Check]:
    """Those of a group that fail, the least likely first."""
    return sorted((c for c in checks if c.chance < share(len(checks))), key=lambda c: c.chance)


def spread(numbers: Numbers) -> float:
    """Chance of so large or so small a sum of squares of N(0, 1)."""
    squares, n = float(numbers @ numbers), len(numbers)
    return both(float(chi2.cdf(squares, n)), float(chi2.sf(squares, n)))


def centre(numbers: Numbers) -> float:
    """Chance of a mean so far from that of N(0, 1)."""
    return float(2.0 * ndtr(-abs(numbers.sum()) / len(numbers) ** 0.5))


def form(numbers: Numbers) -> float:
    """Chance of a distribution function so far from that of N(0, 1) (Kolmogorov and Smirnov)."""
    return float(kstest(numbers, "norm").pvalue)


def tails(numbers: Numbers) -> float:
    """Chance of so many, or so few, numbers beyond ``FAR`` standard deviations."""
    far, rate = int((np.abs(numbers) > FAR).sum()), 2.0 * ndtr(-FAR)
    n = len(numbers)
    return both(float(binom.cdf(far, n, rate)), float(binom.sf(far - 1, n, rate)))


def likeness(given: Sequence[Numbers], fresh: Sequence[Numbers]) -> float:
    """Chance that ``fresh`` numbers are so much like ``given`` ones, or like their negative.

    Given the first, the sum of the products is N(0, |given|^2) exactly if the others are N(0, 1).

    Args:
        given: any vectors.
        fresh: of the same lengths, none of whose numbers is among those given.
    """
    product = sum(float(u @ v) for u, v in zip(given, fresh, strict=True))
    length = sum(float(u @ u) for u in given) ** 0.5
    return float(2.0 * ndtr(-abs(product) / length)) if length else 1.0


def shifted_likeness(given: Numbers, fresh: Numbers) -> Numbers:
    """The same for every shift of one vector against the other.

    Args:
        given: (m, p) rows that are summed over.
        fresh: (..., m, q); only its numbers are taken as N(0, 1).

    Returns:
        (...,) chance of the likeness at the worst shift, all of them allowed for.
    """
    p, q = given.shape[-1], fresh.shape[-1]
    shifts = p + q - 1
    length = next_fast_len(shifts, real=True)

    def correlated(u: Numbers, v: Numbers) -> Numbers:
        spectrum = (rfft(u, length).conj() * rfft(v, length)).sum(axis=-2)
        return np.asarray(irfft(spectrum, length))

    products = correlated(given, fresh)
    squares = correlated(given**2, np.ones((len(given), q)))
    overlapping = np.r_[0:q, length - p + 1 : length]
    scale = np.sqrt(np.maximum(squares[overlapping], 1e-6))
    worst = np.abs(products[..., overlapping] / scale).max(axis=-1)
    return np.asarray(np.minimum(1.0, 2.0 * shifts * ndtr(-worst)))


def shared_coins(given: Flags, fresh: Flags, rate: float) -> float:
    """Chance that coins came up together with given ones so often, if each does at ``rate``.

    Args:
        given: any flags.
        fresh: of the same shape, none of whose coins is among those given.
        rate: as claimed; coins that come up more seldom make the chance larger, not smaller.
    """
    both_up, up = int((given & fresh).sum()), int(given.sum())
    return float(binom.sf(both_up - 1, up, rate))


def both(below: float, above: float) -> float:
    """Two-sided, from the two tails."""
    return min(1.0, 2.0 * min(below, above))
