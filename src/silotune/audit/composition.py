"""Composition: the accountant's epsilon for all steps, against the privacy loss itself.

Claim and audit would share a fault of the accountant. So the privacy loss L of a whole run is drawn
here as its definition says, step by step, without transforms or grids. Let E be exponential with
mean 1. Then

    P(L > epsilon + E) = E[(1 - exp(epsilon - L))_+] = delta(epsilon)

exactly (the hockey-stick divergence; Balle and Wang 2018, arXiv 1805.06530), so of N draws a number
exceeds that is binomial. A delta of 1 in 100 is asked for, where that many draws tell; at a smaller
one the same accountant is at work.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import binom

from silotune.privacy import AnyCharge, Charge, CorrelatedCharge

from .checks import Check, Numbers
from .noise_claimed import square_root

DELTA = 0.01
"""At which epsilon is asked for."""

DRAWS, MOST_NORMALS = 200_000, 40_000_000
"""Of the loss, and normal numbers for all of them."""

_AT_ONCE = 10_000


def composition_checks(charge: AnyCharge, epsilon: float) -> list[Check]:
    """Whether epsilon is enough for the charge, with the record and without it.

    Args:
        charge: of all steps. Truncated samples are not drawn here: no check.
        epsilon: what the accountant gives for it, at ``DELTA``.
    """
    match charge:
        case Charge():
            return [_enough(charge, epsilon, record=record) for record in (True, False)]
        case CorrelatedCharge():
            mu = moved(charge) / charge.noise_multiplier
            loss = mu**2 / 2 + mu * np.random.default_rng().standard_normal(DRAWS)
            return [_check("correlated noise", loss, epsilon)]
    return []


def moved(charge: CorrelatedCharge) -> float:
    """How far one record moves C x: the norm of the sum of its columns, which begin at once."""
    lower = square_root(charge.bands, charge.steps)
    return float(np.linalg.norm(lower[:, :: charge.separation].sum(axis=1)))


def _enough(charge: Charge, epsilon: float, *, record: bool) -> Check:
    draws = min(DRAWS, max(_AT_ONCE, MOST_NORMALS // charge.steps))
    parts = [_losses(charge, _AT_ONCE, record=record) for _ in range(draws // _AT_ONCE)]
    world = "with the record" if record else "without it"
    return _check(f"{charge.steps} steps {world}", np.concatenate(parts), epsilon)


def _losses(charge: Charge, n: int, *, record: bool) -> Numbers:
    """(n,) log of the ratio of densities of all steps, where the record is there, or is not."""
    g, total = np.random.default_rng(), np.zeros(n)
    q, sigma = charge.sampling_rate, charge.noise_multiplier
    for _ in range(charge.steps):
        x = sigma * g.standard_normal(n)
        if record:
            x += g.random(n) < q
        ratio = (2.0 * x - 1.0) / (2.0 * sigma**2)
        absent = math.log1p(-q) if q < 1.0 else -math.inf
        total += np.logaddexp(absent, math.log(q) + ratio)
    return total if record else -total


def _check(what: str, losses: Numbers, epsilon: float) -> Check:
    n = len(losses)
    beyond = int((losses > epsilon + np.random.default_rng().exponential(size=n)).sum())
    about = f"delta of {what} at epsilon {epsilon:.4g}, {beyond / n / DELTA:.3f} times as claimed"
    return Check(about, float(binom.sf(beyond - 1, n, DELTA)))
