"""LoRA-FAIR's objective as a problem of one number, and its minimum by the roots of a derivative.

With G = A' A'^T and M = E[BA] A'^T, a B' at which the objective is stationary is
``(E[B] + alpha M)(1 + gamma G)^-1`` with ``gamma = alpha <M, B'> / |B'A'|^2``; that makes its
correction D = B' - E[B] orthogonal to B' itself. In the eigenbasis of G all are columns, and every
column lies in the plane of those of E[B] and M: two coordinates for each, whatever the size of the
site. For a given gamma, alpha is the root of a quadratic. So the stationary points are a curve in
gamma, of the largest cosine for every length of D, along which the objective rises by
``p strength |D|^(p - 1) - unit |D| / (alpha |B'A'|)`` for a penalty ``strength |D|^p``.

Shapes: r = rank, n = any number of choices of gamma.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

FARTHEST = 40.0
"""Of log gamma: below, B' is E[B] to rounding; above it in units of G, the projection of E[BA]."""

POINTS = 64
"""Of the curve, between which the derivative changes its sign once at most."""

LEAST = 0.1
"""|B'| / |E[B]|, and the cosine of the two: further off the objective would rather have no B."""

EXACT = 4 * float(np.finfo(np.float64).eps)
"""Of log gamma, relative."""


class Point(NamedTuple):
    """So much of E[B] and of M is in every column of B' (r,)."""

    of_b: Numbers
    of_m: Numbers


@dataclass(frozen=True, eq=False, kw_only=True)
class FairProblem:
    """All that the objective knows of a site; E[B] and M have norm 1.

    Attributes:
        gram: eigenvalues of G (r,), the largest 1; 0 where it has no direction.
        b: lengths of the columns of E[B] (r,).
        m_along: those of M along the columns of E[B] (r,).
        m_across: and across them, not negative (r,).
        unit: of the cosine, which is ``unit <M, B'> / |B'A'|``.
        strength: of the penalty.
        power: p, 1 or 2.
    """

    gram: Numbers
    b: Numbers
    m_along: Numbers
    m_across: Numbers
    unit: float
    strength: float
    power: int

    def minimum(self) -> Point | None:
        """The B' of the least objective; None if that is E[B], or if there is no angle."""
        product = float(self.gram @ self.b**2) ** 0.5
        if not product or not (self.m_along.any() or self.m_across.any()):
            return None
        logs = self._admitted()
        rises = self.rises(logs)
        found = [root(self.rises, *logs[i : i + 2]) for i in np.flatnonzero(np.diff(rises > 0))]
        if rises[-1] <= 0:
            found.append(float(logs[-1]))
        with_m = float(self.m_along @ self.b)
        best, lowest = None, np.inf
        if rises[0] > 0 or with_m <= 0:  # else the objective falls as E[B] is left
            lowest = 1.0 - self.unit * with_m / product
        for log_gamma in found:
            value = self.objective(log_gamma)
            if value < lowest:
                best, lowest = log_gamma, value
        if best is None:
            return None
        weight, alpha = self._curve(np.array([best]))
        return Point(weight[0], (alpha * weight)[0])

    def rises(self, log_gamma: Numbers) -> Numbers:
        """Of the sign of the objective's derivative by |D| (n,)."""
        if not self.strength:
            return -np.ones_like(log_gamma)  # all the way to the projection
        weight, alpha = self._curve(log_gamma)
        moved, _, product, _ = self._lengths(log_gamma, weight, alpha)
        down = np.log(self.unit) - _log(alpha[:, 0]) - _log(product)
        if self.power == 1:
            down += _log(moved)
        rises: Numbers = np.log(self.power) + np.log(self.strength) - down
        return rises

    def objective(self, log_gamma: float) -> float:
        """At a point of the curve."""
        logs = np.array([log_gamma])
        moved, _, product, along = self._lengths(logs, *self._curve(logs))
        cosine = self.unit * float(along[0] / product[0])
        return 1.0 - cosine + self.strength * float(moved[0]) ** self.power

    def _admitted(self) -> Numbers:
        """Points of the curve, up to where B' is too short."""
        flattest = self.gram[self.gram > 0].min()
        logs = np.linspace(-FARTHEST, FARTHEST - np.log(flattest), POINTS)
        short = np.flatnonzero(self._shortness(logs) > 0)
        if not len(short):
            return logs
        first = max(int(short[0]), 1)
        last = logs[first]
        if short[0]:
            last = root(self._shortness, logs[first - 1], last)
        return np.append(logs[:first], last)

    def _shortness(self, log_gamma: Numbers) -> Numbers:
        _, length, *_ = self._lengths(log_gamma, *self._curve(log_gamma))
        return LEAST - length

    def _curve(self, log_gamma: Numbers) -> tuple[Numbers, Numbers]:
        """The diagonal (n, r) of (1 + gamma G)^-1, and alpha (n, 1)."""
        stretch = np.exp(log_gamma)[:, None] * self.gram
        weight = 1.0 / (1.0 + stretch)
        squared = weight**2
        a = squared @ (self.m_along**2 + self.m_across**2)
        half_b = 0.5 * (((1.0 - stretch) * squared) @ (self.b * self.m_along))
        c = (stretch * squared) @ self.b**2
        root = np.sqrt(half_b**2 + a * c)
        with np.errstate(divide="ignore", invalid="ignore"):
            alpha = np.where(half_b > 0, c / (half_b + root), (root - half_b) / a)
        return weight, alpha[:, None]

    def _lengths(
        self, log_gamma: Numbers, weight: Numbers, alpha: Numbers
    ) -> tuple[Numbers, Numbers, Numbers, Numbers]:
        """|D|, |B'|, |B'A'| and <M, B'>, each (n,).

        D has a formula of its own: the difference of B' and E[B] would lose its digits.
        """
        across = alpha * self.m_across * weight
        along = (self.b + alpha * self.m_along) * weight
        away = (alpha * self.m_along - np.exp(log_gamma)[:, None] * self.gram * self.b) * weight
        squares = along**2 + across**2
        return (
            np.sqrt((away**2 + across**2).sum(axis=1)),
            np.sqrt(squares.sum(axis=1)),
            np.sqrt(squares @ self.gram),
            along @ self.m_along + across @ self.m_across,
        )


def _log(x: Numbers) -> Numbers:
    """Of what is 0 where it is too small to be told."""
    logs: Numbers = np.log(np.maximum(x, float(np.finfo(np.float64).tiny)))
    return logs


def root(function: Callable[[Numbers], Numbers], low: float, high: float) -> float:
    """Where a continuous function (1,) -> (1,) is 0, between two places where its signs differ.

    Inverse quadratic interpolation where the last three places allow it, else bisection
    (Chandrupatla, Advances in Engineering Software 28:145, 1997).
    """

    def at(x: float) -> float:
        return float(function(np.array([x]))[0])

    a, of_a, b, of_b = high, at(high), low, at(low)
    part = 0.5
    while True:
        x = a + part * (b - a)
        value = at(x)
        if (value > 0) == (of_a > 0):
            c, of_c = a, of_a
        else:
            c, of_c, b, of_b = b, of_b, a, of_a
        a, of_a = x, value
        best, of_best = (a, of_a) if abs(of_a) < abs(of_b) else (b, of_b)
        least = EXACT * max(abs(best), 1.0) / abs(b - a)
        if least > 0.5 or not of_best:
            return best
        place, height = (a - b) / (c - b), (of_a - of_b) / (of_c - of_b)
        part = 0.5
        if height**2 < place and (1.0 - height) ** 2 < 1.0 - place:
            part = of_a / (of_b - of_a) * of_c / (of_b - of_c)
            part += (c - a) / (b - a) * of_a / (of_c - of_a) * of_b / (of_c - of_b)
        part = min(max(part, least), 1.0 - least)
