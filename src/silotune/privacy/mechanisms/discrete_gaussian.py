"""Discrete Gaussian noise: integers x with probability proportional to exp(-x^2 / (2 std^2)).

Noise on a grid, added to a value on the same grid, leaves no low-order digits that could betray
the value (Mironov 2012). The sampler is that of Canonne, Kamath and Steinke 2020 (arXiv
2004.00010, Algorithms 2 and 3) for whole arrays, with its two acceptances merged into one. T is a
power of two near std, cut into k steps of t = T / k integers; then

    V geometric, P(V >= v) = exp(-v / k);  U uniform in 0 ... t - 1;  Y = U + t V;
    keep Y with probability exp(-(Y / std - std / T)^2 / 2 - U / T), give it a random sign;
    minus zero is rejected, or zero would come twice as often.

The exponents of P(V) and of the acceptance add up to -Y^2 / (2 std^2), plus a constant.

Exact: given uniform words, the distribution is the discrete Gaussian itself, not something close to
it; std is taken as the rational number that a float is. Every comparison is that of a uniform real
number with an exponential. Its first 64 binary digits nearly always settle it, in float64 with a
wide margin for rounding; whatever falls into the margin is decided in exact arithmetic, with as
many more digits as it takes. So the numbers are also the same on every machine. Their making takes
a time that depends on them, slightly: whoever can time it to the microsecond learns a little.
"""

from __future__ import annotations

import decimal
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .secure_rng import Randomness

MAX_STD = 2.0**40
"""Beyond, float64 could not count the integers within reach."""

_CHUNK = 2**14  # proposals at a time: stays in the cache, and memory stays flat
_STEPS = 16  # k, where T has as many integers
_STEP_MARGIN = 2.0**-30  # of -log of a uniform number of 2^-30 or more
_KEEP_MARGIN = 2.0**-40  # of a probability

Words = NDArray[np.uint64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


def discrete_gaussian(g: Randomness, n: int, std: float) -> Tensor:
    """Independent draws of the discrete Gaussian: (n,) int64, on the CPU.

    Args:
        g: read for about five words a draw, up to ten where ``std`` is small.
        n: 0 or more.
        std: the parameter. The standard deviation is at most this, and equal to it to 1e-16 of
            it where ``std`` is 1.5 or more. 0 gives zeros.

    Raises:
        ValueError: if ``std`` is negative or beyond 2^40.
    """
    if not 0.0 <= std <= MAX_STD:
        raise ValueError(f"discrete noise needs a standard deviation of 0 to 2^40, not {std}")
    out = np.zeros(n, dtype=np.int64)
    proposal = _Proposal.near(std)
    done = 0 if std else n
    while done < n:
        drawn = proposal.kept(g, min(_CHUNK, 2 * (n - done) + 8))[: n - done]
        out[done : done + len(drawn)] = drawn
        done += len(drawn)
    return torch.from_numpy(out)


@dataclass(frozen=True)
class _Proposal:
    """How candidates are made and kept.

    Attributes:
        std: of the target.
        scale: T.
        steps: k, which divides T.
    """

    std: float
    scale: int
    steps: int

    @classmethod
    def near(cls, std: float) -> _Proposal:
        """For std of 0.7 or more, at least 63 in 100 candidates are kept."""
        scale = 2 ** round(max(math.log2(std or 1.0), 0.0))
        return cls(std, scale, min(_STEPS, scale))

    def kept(self, g: Randomness, candidates: int) -> Integers:
        """Those of so many candidates that are kept."""
        width = self.scale // self.steps
        steps = self._geometric(g, g.words(candidates))
        bits = g.words(candidates)
        inner = (bits & np.uint64(width - 1)).view(np.int64)
        size = inner + width * steps
        negative = bits >= 2**63
        keep = self._accepted(g, g.words(candidates), size, inner)
        keep &= (size > 0) | ~negative
        kept = np.flatnonzero(keep)
        return size[kept] * (1 - 2 * negative[kept].astype(np.int64))

    def _geometric(self, g: Randomness, words: Words) -> Integers:
        """V: how many of the thresholds exp(-1 / k), exp(-2 / k), ... a number is below."""
        position = np.log(_fractions(words)) * -self.steps
        steps = position.astype(np.int64)
        unsure = np.abs(position - np.rint(position)) < _STEP_MARGIN * self.steps
        unsure |= words < 2**34
        for i in np.flatnonzero(unsure):
            number, steps[i] = _Uniform(int(words[i]), g), 0
            while number.below_exp(-Fraction(int(steps[i]) + 1, self.steps)):
                steps[i] += 1
        return steps

    def _accepted(self, g: Randomness, words: Words, size: Integers, inner: Integers) -> Flags:
        """Which numbers are below the probabilities to keep Y = size, where U = inner."""
        fractions = _fractions(words)
        with np.errstate(over="ignore"):  # a tiny std: the probability is 0 indeed
            away = size / self.std - self.std / self.scale
            chance = np.exp(-0.5 * away * away - inner / self.scale)
        accepted = fractions < chance
        std = Fraction(self.std)
        for i in np.flatnonzero(np.abs(fractions - chance) < _KEEP_MARGIN):
            off = int(size[i]) / std - std / self.scale
            exponent = -off * off / 2 - Fraction(int(inner[i]), self.scale)
            accepted[i] = _Uniform(int(words[i]), g).below_exp(exponent)
        return accepted


class _Uniform:
    """A uniform real number in [0, 1), of which as many binary digits are drawn as are needed."""

    def __init__(self, word: int, g: Randomness) -> None:
        self._digits, self._known, self._source = word, 64, g

    def below_exp(self, exponent: Fraction) -> bool:
        """Whether it is below e^exponent <= 1, exactly; more digits are drawn until that is known.

        It will be: e^exponent is irrational, or 1.
        """
        while exponent:
            low, high = _exp_between(exponent, self._known)
            if self._digits < low or self._digits >= high:
                return self._digits < low
            self._digits = (self._digits << 64) + int(self._source.words(1)[0])
            self._known += 64
        return True


def _exp_between(exponent: Fraction, digits: int) -> tuple[int, int]:
    """Two integers that 2^digits e^exponent lies between, nearly always neighbours.

    Decimal's exp is correctly rounded, so with ten decimal digits to spare the error stays far
    below the millionth that is allowed for: |x| e^x and e^x are at most 1.
    """
    with decimal.localcontext(_QUIET) as context:
        context.prec = digits // 3 + 10  # log10(2) < 1 / 3
        power = (decimal.Decimal(exponent.numerator) / exponent.denominator).exp()
        scaled, margin = power * 2**digits, decimal.Decimal("1e-6")
        return math.floor(scaled - margin), math.ceil(scaled + margin)


_QUIET = decimal.Context(traps=[])  # what underflows is 0, and near enough


def _fractions(words: Words) -> NDArray[np.float64]:
    """The numbers in (0, 1] that begin with the words' binary digits, to 2^-63 and a rounding."""
    halves = (words >> np.uint64(1)).view(np.int64)  # converting int64 is fast, uint64 is not
    return (halves.astype(np.float64) + 0.5) * 2.0**-63
