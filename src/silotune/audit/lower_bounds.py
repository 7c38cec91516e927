"""What an attack proves: lower bounds on epsilon from the scores of an adversary.

An accountant says what a mechanism costs at most; an attack on its outputs shows what it costs at
least. If the second exceeds the first, code or claim are wrong. Every bound here holds with the
stated confidence, whatever the scores are: a bad score makes a low bound, never a wrong one.

    two worlds   many runs with and without one record (Nasr et al. 2023, arXiv 2302.07956)
    one run      one run with many records, each in by a fair coin (Steinke et al. 2023,
                 arXiv 2305.08846)

Rates are bounded after Clopper and Pearson (1934). All in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr
from scipy.stats import beta, binom, norm

CONFIDENCE = 0.99
"""Chance at least that a bound holds."""

CAUTION = 1e-4
"""Rates that only serve to choose a threshold are bounded with so much less chance of failure:
far out in the tails a few lucky trials would win otherwise, and lose on the other half."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What two worlds prove; all of it together with the one confidence.

    Attributes:
        mu: the worlds are at least as far apart as N(0, 1) and N(mu, 1), in the sense that no
            mu'-GDP mechanism with mu' < mu could have made them (Dong et al. 2019,
            arXiv 1905.02383).
        gaussian: epsilon at delta of that mu. It bounds what a Gaussian mechanism costs.
        distribution_free: bounds epsilon at delta of any mechanism.
    """

    mu: float
    gaussian: float
    distribution_free: float


def two_worlds(
    absent: Numbers, present: Numbers, delta: float, confidence: float = CONFIDENCE
) -> Bounds:
    """Bounds from the scores of independent trials in the two worlds.

    Which score is used, in which direction and from which threshold on, is chosen on the first
    half of the trials; the error rates are counted on the other half.

    Args:
        absent: (trials, scores), without the record.
        present: the same, with it.
        delta: at which epsilon is asked for.
        confidence: that mu and both epsilons hold.

    Raises:
        ValueError: if there are fewer than two trials in a world, or scores that are no numbers.
    """
    if min(len(absent), len(present)) < 2 or not np.isfinite([*absent, *present]).all():
        raise ValueError("an audit needs two trials or more in each world, with finite scores")
    failure = (1.0 - confidence) / 4.0  # two rates in each of two bounds
    known, fresh = _half(absent, present, 0), _half(absent, present, 1)
    careful = failure * CAUTION
    mu = _gaussian(fresh.at(known, _gaussian(known, careful)), failure).max()
    free = _free(fresh.at(known, _free(known, delta, careful)), delta, failure).max()
    return Bounds(
        mu=max(0.0, float(mu)),
        gaussian=gaussian_epsilon(max(0.0, float(mu)), delta),
        distribution_free=max(0.0, float(free)),
    )


def one_run(
    canaries: int, guesses: int, right: int, delta: float, confidence: float = CONFIDENCE
) -> float:
    """Largest epsilon that one run refutes: no (epsilon', delta) with a smaller one is possible.

    Theorem 5.2 of Steinke et al. 2023 (arXiv 2305.08846).

    Args:
        canaries: records that were in or out by a fair coin each.
        guesses: how many the adversary spoke on; fixed before it saw anything.
        right: how many of those guesses were right.
        delta: of the claim.
        confidence: that the bound holds.

    Raises:
        ValueError: unless ``0 <= right <= guesses <= canaries``.
    """
    if not 0 <= right <= guesses <= canaries:
        raise ValueError(f"{right} right of {guesses} guesses on {canaries} canaries: impossible")
    failure = 1.0 - confidence
    low, high = 0.0, 1.0
    while _surprise(canaries, guesses, right, high, delta) < failure:
        low, high = high, 2.0 * high
    for _ in range(50):
        middle = (low + high) / 2.0
        if _surprise(canaries, guesses, right, middle, delta) < failure:
            low = middle
        else:
            high = middle
    return low if _surprise(canaries, guesses, right, low, delta) < failure else 0.0


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Epsilon at ``delta`` of telling N(0, 1) from N(mu, 1) (Balle & Wang 2018, arXiv 1805.06530).

    The root of ``Phi(mu/2 - e/mu) - exp(e) Phi(-mu/2 - e/mu) = delta``; 0 if there is none.
    """

    def excess(e: float) -> float:
        kept = float(ndtr(mu / 2 - e / mu))
        return kept - math.exp(e + float(log_ndtr(-mu / 2 - e / mu))) - delta

    if mu <= 0.0 or excess(0.0) <= 0.0:
        return 0.0
    return float(brentq(excess, 0.0, mu**2 / 2 + mu * math.sqrt(2 * math.log(1 / delta)) + 1.0))


def upper_rate(hits: NDArray[np.int64], trials: int, failure: float) -> Numbers:
    """Clopper-Pearson: rates that so few hits would exceed with chance ``failure`` at most."""
    rates = beta.ppf(1.0 - failure, hits + 1, np.maximum(trials - hits, 1))
    return np.asarray(np.where(hits < trials, rates, 1.0), dtype=np.float64)


def _surprise(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """Chance at most that an (epsilon, delta) mechanism lets so many guesses be right."""
    best = 1.0 / (1.0 + math.exp(-epsilon))  # of randomised response
    plain = float(binom.sf(right - 1, guesses, best))
    fewer = np.arange(1, right + 1)
    slips = np.cumsum(binom.pmf(right - fewer, guesses, best)) / fewer
    return min(1.0, plain + 2.0 * canaries * delta * float(slips.max(initial=0.0)))


class _Errors(NamedTuple):
    """How often "it was there" would be wrong, for score (s) and threshold (t)."""

    scores: tuple[Numbers, Numbers]  # (trials, 2 s) each: every score in both directions
    thresholds: Numbers  # (t, 2 s)
    false_alarms: NDArray[np.int64]  # (t, 2 s), of ``len(scores[0])``
    misses: NDArray[np.int64]  # (t, 2 s), of ``len(scores[1])``

    def at(self, other: _Errors, worth: Numbers) -> _Errors:
        """These trials' errors at the score and threshold that are worth most on the others."""
        score = int(worth.max(axis=0).argmax())
        best = np.flatnonzero(worth[:, score] == worth[:, score].max())
        threshold = other.thresholds[best[len(best) // 2], score]
        out, there = (scores[:, [score]] for scores in self.scores)
        return _errors(out, there, np.array([[threshold]]))


def _half(absent: Numbers, present: Numbers, which: int) -> _Errors:
    """The errors on every second trial, at thresholds midway between its scores."""
    out, there = (np.concatenate([s, -s], axis=1)[which::2] for s in (absent, present))
    pooled = np.sort(np.concatenate([out, there]), axis=0)
    return _errors(out, there, (pooled[1:] + pooled[:-1]) / 2)


def _errors(out: Numbers, there: Numbers, thresholds: Numbers) -> _Errors:
    def above(scores: Numbers) -> NDArray[np.int64]:
        ordered = np.sort(scores, axis=0)
        columns = zip(ordered.T, thresholds.T, strict=True)
        below = [np.searchsorted(s, t, side="right") for s, t in columns]
        return len(scores) - np.stack(below, axis=1)

    return _Errors((out, there), thresholds, above(out), len(there) - above(there))


def _rates(errors: _Errors, failure: float) -> tuple[Numbers, Numbers]:
    """Upper bounds of both error rates; looked up, as there are many thresholds."""
    trials = [len(scores) for scores in errors.scores]
    tables = [upper_rate(np.arange(n + 1), n, failure) for n in trials]
    return tables[0][errors.false_alarms], tables[1][errors.misses]


def _gaussian(errors: _Errors, failure: float) -> Numbers:
    """Mu for every threshold: ``Phi^-1(1 - FPR) - Phi^-1(FNR)``."""
    false_alarms, misses = _rates(errors, failure)
    return np.asarray(norm.isf(false_alarms) - norm.ppf(misses), dtype=np.float64)


def _free(errors: _Errors, delta: float, failure: float) -> Numbers:
    """Epsilon for every threshold: ``log((1 - delta - FPR) / FNR)``, or the same exchanged."""
    rates = _rates(errors, failure)
    logs = [np.log(np.maximum(1.0 - delta - a, 1e-300) / b) for a, b in (rates, rates[::-1])]
    return np.maximum(*logs)
