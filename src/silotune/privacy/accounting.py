"""What privacy costs: epsilon of composed Poisson-subsampled Gaussian mechanisms.

One step of DP-SGD (q, sigma) draws every record by its own coin of probability q and adds
Gaussian noise of sigma clip norms to the clipped sum. Steps compose. Epsilon comes from privacy
loss distributions (dp-accounting; Doroshenko et al. 2022, arXiv 2207.04380): the discretised
loss dominates the true one, so every epsilon here is an upper bound, tighter on a finer grid.

Neighbouring relation: one record more or less (add-remove). Units: sigma in clip norms, epsilon
and delta are pure numbers. Importing dp-accounting takes a second, so it is done when needed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, repeat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dp_accounting import DpEvent

FINE, COARSE = 1e-4, 1e-3
"""Grids of the privacy loss: to certify with, to search with."""

MAX_SIGMA, MIN_SIGMA = 1e4, 1e-2
"""Noise multipliers that calibration considers; anything below is counted as no noise."""

_MIN_DELTA = 1e-10  # convolutions by FFT do not resolve much less
_PRECISION = 2e-4  # relative, of a calibrated sigma


@dataclass(frozen=True, order=True)
class Charge:
    """The price of ``steps`` steps of one subsampled Gaussian mechanism. Public.

    Attributes:
        sampling_rate: q in (0, 1], the chance of each record to be in a batch.
        noise_multiplier: sigma >= 0, noise std in units of the clip norm.
        steps: how many steps were, or will be, executed.

    Raises:
        ValueError: if a field is out of range.
    """

    sampling_rate: float
    noise_multiplier: float
    steps: int

    def __post_init__(self) -> None:
        _check_rate(self.sampling_rate)
        if not 0.0 <= self.noise_multiplier < math.inf:
            raise ValueError(
                "privacy.noise_multiplier: must be a finite number of 0 or more, not "
                f"{self.noise_multiplier}"
            )
        _check_count("steps", self.steps)


def epsilon(charges: Sequence[Charge], delta: float, *, grid: float = FINE) -> float:
    """Epsilon at ``delta`` of everything in ``charges`` together; an upper bound.

    0 without steps, infinity without noise (sigma below 0.01). Results are remembered.

    Args:
        charges: in any order; equal (q, sigma) are merged.
        delta: between 1e-10 and 1.
        grid: finest interval of the privacy loss. It is coarsened where the loss is so wide
            (epsilon in the tens and beyond) that the difference cannot be seen.

    Raises:
        ValueError: if ``delta`` is out of range.
    """
    _check_delta(delta)
    return _epsilon(_merged(charges), delta, grid)


def epsilon_by_round(
    sampling_rate: float,
    noise_multiplier: float,
    steps_per_round: int,
    rounds: int,
    delta: float,
    *,
    grid: float = COARSE,
) -> list[float]:
    """Epsilon at ``delta`` after 1, 2, ..., ``rounds`` rounds: ``rounds`` upper bounds.

    Raises:
        ValueError: if an argument is out of range.
    """
    _check_delta(delta)
    _check_count("train.num_rounds", rounds)
    charge = Charge(sampling_rate, noise_multiplier, steps_per_round)
    if steps_per_round == 0 or noise_multiplier < MIN_SIGMA:
        return [epsilon([charge], delta)] * rounds
    whole = Charge(sampling_rate, noise_multiplier, steps_per_round * rounds)
    loss = _loss(charge, _interval([whole], grid))
    totals = accumulate(repeat(loss, rounds), lambda total, one: total.compose(one))
    return [float(total.get_epsilon_for_delta(delta)) for total in totals]


def calibrate(target_epsilon: float, delta: float, sampling_rate: float, steps: int) -> float:
    """The least sigma, to 0.2 % of the target, for which ``steps`` steps cost at most the target.

    Searched on the coarse grid and certified on the fine one: for the sigma returned,
    ``epsilon([Charge(q, sigma, steps)], delta) <= target_epsilon`` holds.

    Raises:
        ValueError: if an argument is out of range, or no sigma up to 1e4 is enough.
    """
    if not 0.0 < target_epsilon < math.inf:
        raise ValueError(f"privacy.target_epsilon: must be a positive number, not {target_epsilon}")
    _check_delta(delta)
    _check_rate(sampling_rate)
    _check_count("steps", steps)
    # A silo may sum its FFTs in another order than the machine that calibrates.
    target = target_epsilon * (1.0 - 1e-6)

    def cost(grid: float) -> Callable[[float], float]:
        return lambda sigma: epsilon([Charge(sampling_rate, sigma, steps)], delta, grid=grid)

    # The Gaussian limit for small q / sigma; where sigma is below 1 it is only a start.
    limit = sampling_rate * math.sqrt(2.0 * steps * math.log(1.0 / delta)) / target
    guess = min(max(limit, 0.7), MAX_SIGMA)
    sigma = _least(cost(COARSE), target, guess)
    if sigma is not None and 0.998 * target <= cost(FINE)(sigma) <= target:
        return sigma
    sigma = _least(cost(FINE), target, sigma or guess)
    if sigma is None:
        raise ValueError(
            f"privacy.target_epsilon: {target_epsilon:g} cannot be reached in {steps} steps at "
            f"sampling rate {sampling_rate:.3g}, even with a noise multiplier of {MAX_SIGMA:g}; "
            "raise it, or take fewer train.num_rounds or train.local_steps"
        )
    return sigma


def event(charges: Sequence[Charge]) -> DpEvent:
    """The same charges as dp-accounting describes them: an inert value for other accountants."""
    import dp_accounting as dp

    def describe(charge: Charge) -> DpEvent:
        step = dp.GaussianDpEvent(charge.noise_multiplier)
        if charge.sampling_rate < 1.0:
            step = dp.PoissonSampledDpEvent(charge.sampling_rate, step)
        return dp.SelfComposedDpEvent(step, charge.steps)

    return dp.ComposedDpEvent([describe(charge) for charge in _merged(charges)])


def _merged(charges: Sequence[Charge]) -> tuple[Charge, ...]:
    """One charge for each (q, sigma) with steps, in a fixed order."""
    steps = Counter[tuple[float, float]]()
    for charge in charges:
        steps[charge.sampling_rate, charge.noise_multiplier] += charge.steps
    return tuple(sorted(Charge(q, sigma, n) for (q, sigma), n in steps.items() if n))


@lru_cache(maxsize=4096)
def _epsilon(charges: tuple[Charge, ...], delta: float, grid: float) -> float:
    if not charges:
        return 0.0
    if any(charge.noise_multiplier < MIN_SIGMA for charge in charges):
        return math.inf
    interval = _interval(charges, grid)
    total, *rest = (_loss(charge, interval) for charge in charges)
    for loss in rest:
        total = total.compose(loss)
    return float(total.get_epsilon_for_delta(delta))


def _loss(charge: Charge, interval: float) -> Any:
    """The privacy loss distribution of a charge."""
    from dp_accounting.pld import privacy_loss_distribution as pld

    q, sigma, steps = charge.sampling_rate, charge.noise_multiplier, charge.steps
    if q == 1.0:  # T Gaussians of sigma are one of sigma / sqrt(T)
        sigma, steps = sigma / math.sqrt(steps), 1
    one = pld.from_gaussian_mechanism(
        sigma, value_discretization_interval=interval, sampling_prob=q
    )
    return one if steps == 1 else one.self_compose(steps)


def _interval(charges: Sequence[Charge], grid: float) -> float:
    """The grid, coarsened as far as time and memory demand.

    A single loss is built point by point (limit 4e5 points), the composed one by FFT (4e6). The
    composition is about a Gaussian mechanism of mu = q sqrt(T (exp(1/sigma^2) - 1)) (Bu et al.
    2019, arXiv 1911.11607) and never beyond mu = sqrt(T) / sigma.
    """
    single, mu_squared = 0.0, 0.0
    for charge in charges:
        q, sigma, steps = charge.sampling_rate, charge.noise_multiplier, charge.steps
        worst = steps / sigma**2
        amplified = q**2 * steps * math.expm1(min(sigma**-2, 700.0))
        single = max(single, _width(worst if q == 1.0 else sigma**-2))
        mu_squared += min(worst, amplified)
    return max(grid, single / 4e5, _width(mu_squared) / 4e6)


def _width(mu_squared: float) -> float:
    """Span of the privacy loss of a Gaussian mechanism, to ten standard deviations."""
    return mu_squared / 2 + 10 * math.sqrt(mu_squared)


def _least(cost: Callable[[float], float], target: float, guess: float) -> float | None:
    """The least sigma with ``cost(sigma) <= target``, from above; None if there is none."""
    from scipy.optimize import brentq

    def excess(log_sigma: float) -> float:
        return math.log(max(cost(math.exp(log_sigma)), 1e-12) / target)

    least, most = math.log(MIN_SIGMA), math.log(MAX_SIGMA)
    low = high = math.log(guess)
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


def _check_delta(delta: float) -> None:
    if not _MIN_DELTA <= delta < 1.0:
        raise ValueError(
            f"privacy.target_delta: must be at least {_MIN_DELTA:g} and below 1, not {delta}"
        )


def _check_rate(q: float) -> None:
    if not 0.0 < q <= 1.0:
        raise ValueError(
            f"train.batch_size: the sampling rate must be above 0 and at most 1, not {q}; "
            "the expected batch cannot be larger than the silo's num_examples"
        )


def _check_count(name: str, value: int) -> None:
    if value < 0:
        raise ValueError(f"{name}: must not be negative, not {value}")
