"""Calibration: the least noise whose price, by the accountant, is within a budget.

Units: sigma in clip norms, epsilon and delta are pure numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from .accountant import COARSE, FINE, MAX_SIGMA, MIN_SIGMA, check_range, epsilon
from .charges import AnyCharge, CorrelatedCharge, Relation
from .supported import one_gaussian

MARGIN = 1.0 - 1e-6
"""Of the target: a silo may sum its FFTs in another order than the machine that calibrates."""

LEAST_USED = 0.998
"""Of the target: less would be noise that is not needed."""

_PRECISION = 2e-4  # relative, of a calibrated sigma


def calibrate(
    target_epsilon: float,
    delta: float,
    price: Callable[[float], AnyCharge],
    *,
    relation: Relation = "add-remove",
    besides: Sequence[AnyCharge] = (),
) -> float:
    """The least sigma, to 0.2 % of the target, whose price is at most the target.

    Searched on the coarse grid and certified on the fine one: for the sigma returned,
    ``epsilon([*besides, price(sigma)], delta, relation=relation) <= target_epsilon`` holds.

    Args:
        target_epsilon: above 0.
        delta: between 1e-10 and 1.
        price: all that the worst case will charge at a sigma.
        relation: between neighbouring data sets.
        besides: what the same records pay for other releases, whatever sigma is.

    Raises:
        ValueError: as ``epsilon``, if the target is out of range, or if no sigma up to 1e4 is
            enough.
    """
    check_range(delta)
    if not 0.0 < target_epsilon < math.inf:
        raise ValueError(f"target_epsilon: must be a positive number, not {target_epsilon}")
    target = target_epsilon * MARGIN

    def cost(grid: float) -> Callable[[float], float]:
        return lambda sigma: epsilon([*besides, price(sigma)], delta, relation=relation, grid=grid)

    start = guess(price(1.0), target, delta, relation)
    sigma = least(cost(COARSE), target, start)
    if sigma is not None and LEAST_USED * target <= cost(FINE)(sigma) <= target:
        return sigma
    sigma = least(cost(FINE), target, sigma or start)
    if sigma is None:
        raise ValueError(
            f"target_epsilon: {target_epsilon:g} cannot be reached in {price(1.0).steps} "
            f"steps, even with a noise multiplier of {MAX_SIGMA:g}; raise it, or take fewer "
            "rounds or local steps, or a smaller batch_size"
            + (", or more count_noise" if besides else "")
        )
    return sigma


def guess(charge: AnyCharge, target: float, delta: float, relation: Relation) -> float:
    """Where to begin: the Gaussian limit for small q / sigma, far off where sigma is below 1."""
    whole = one_gaussian(charge, relation)
    if whole is None:
        assert not isinstance(charge, CorrelatedCharge)
        whole = 1.0 / (charge.sampling_rate * math.sqrt(max(charge.steps, 1)))
    limit = math.sqrt(2.0 * math.log(1.0 / delta)) / (whole * target)
    return min(max(limit, 0.7), MAX_SIGMA)


def least(cost: Callable[[float], float], target: float, start: float) -> float | None:
    """The least sigma with ``cost(sigma) <= target``, from above; None if there is none."""
    from scipy.optimize import brentq

    def excess(log_sigma: float) -> float:
        return math.log(max(cost(math.exp(log_sigma)), 1e-12) / target)

    least, most = math.log(MIN_SIGMA), math.log(MAX_SIGMA)
    low = high = math.log(start)
    stride = 0.05
    while excess(high) > 0.0:
        if high >= most:
            return None
        low, high, stride = high, min(high + stride, most), 2 * stride
    while excess(low) <= 0.0:
        if low <= least:
            return MIN_SIGMA
        high, low, stride = low, max(low - stride, least), 2 * stride
    root = float(brentq(excess, low, high, xtol=_PRECISION / 2))
    while excess(root) > 0.0:  # the root may lie on either side
        root = min(root + _PRECISION / 2, high)
    return math.exp(root)
