"""Privacy loss distributions: of each charge, on a grid that fits it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from .charges import AnyCharge, CorrelatedCharge, Relation, TruncatedCharge
from .gaussian_loss import gaussian_loss
from .referee import library_loss
from .supported import one_gaussian


def loss(
    charge: AnyCharge, relation: Relation, interval: float, times: int = 1, *, library: bool = False
) -> Any:
    """The privacy loss distribution of a charge that was made ``times`` times.

    Args:
        charge: of one silo.
        relation: between neighbouring data sets.
        interval: of the grid.
        times: how often.
        library: whether dp-accounting's classes hold and compose it (``referee``), or ours
            (``privacy_loss``); one cannot be composed with the other.
    """
    if one_gaussian(charge, relation):
        return _one(charge, relation, interval, times, library)  # as a whole
    steps = count(charge, relation, times)
    one = _one(replace(charge, steps=1), relation, interval, 1, library)
    return one if steps == 1 else one.self_compose(steps)


def count(charge: AnyCharge, relation: Relation, times: int = 1) -> int:
    """How many losses are composed for a charge that was made ``times`` times."""
    return times * (1 if one_gaussian(charge, relation) else charge.steps)


@lru_cache(maxsize=128)  # some are of a megabyte
def _one(charge: AnyCharge, relation: Relation, interval: float, times: int, library: bool) -> Any:
    """Of one step, or of a charge that is one Gaussian mechanism as a whole.

    Remembered: it takes longer than to compose it with itself, and every round asks for it again.
    """
    build = library_loss if library else gaussian_loss
    if sigma := one_gaussian(charge, relation):
        return build(sigma / math.sqrt(times), interval)
    assert not isinstance(charge, CorrelatedCharge)
    q, sigma = charge.sampling_rate, charge.noise_multiplier
    plain = build(sigma, interval, sampling_rate=q, relation=relation)
    if isinstance(charge, TruncatedCharge):
        return _cut_short(plain, charge, interval, library)
    return plain


def _cut_short(plain: Any, charge: TruncatedCharge, interval: float, library: bool) -> Any:
    """Of samples that are cut where they are too large, from that of samples that are not.

    As dp-accounting's ``from_truncated_subsampled_gaussian_mechanism``: where a sample is cut, a
    record that comes displaces another.
    """
    from scipy.stats import binom

    n, q, most = charge.num_examples, charge.sampling_rate, charge.largest
    cut = float(binom.sf(most - 1, n - 1, q))
    if cut == 0.0:
        return plain
    drawn = float(binom.sf(most, n, q)) * most / cut / n
    build = library_loss if library else gaussian_loss
    displaced = build(
        charge.noise_multiplier / 2, interval, sampling_rate=drawn, relation="replace-one"
    )
    return displaced.compute_mixture(plain, cut)


def interval(parts: Iterable[tuple[AnyCharge, int]], relation: Relation, grid: float) -> float:
    """The grid, refined where steps lose less than it, coarsened as time and memory demand.

    A grid wider than the loss of one step widens that loss, and the more so the more steps there
    are. On the other hand a single loss is built point by point (limit 4e5 points), the composed
    one by FFT (4e6). The composition is about a Gaussian mechanism of mu^2 = steps * chi^2 of one
    step (Bu et al. 2019, arXiv 1911.11607), and never beyond that of the steps without sampling.

    Args:
        parts: charges, and how many times each was made.
        relation: between neighbouring data sets.
        grid: what is wanted.
    """
    single = composed = steps = 0.0
    for charge, times in parts:
        one, whole = _mu_squared(charge, relation)
        single, composed = max(single, one), composed + times * whole
        steps += count(charge, relation, times)
    narrow = math.sqrt(composed / steps) / 2
    return max(min(grid, narrow), _width(single) / 4e5, _width(composed) / 4e6)


def _mu_squared(charge: AnyCharge, relation: Relation) -> tuple[float, float]:
    """Of the loss that is built, and about that of the whole charge."""
    if sigma := one_gaussian(charge, relation):
        return sigma**-2, sigma**-2
    assert not isinstance(charge, CorrelatedCharge)
    q, steps, one = charge.sampling_rate, charge.steps, charge.noise_multiplier**-2
    most, chi_squared = 4.0 * one, _chi_squared(q, one)
    if isinstance(charge, TruncatedCharge):
        cut, drawn = _cut(charge)
        chi_squared += cut * 4.0 * _chi_squared(drawn, most)
    elif relation == "replace-one":
        chi_squared = 4.0 * q**2 * math.sinh(min(one, 700.0))
    else:
        most = one
    return most, steps * min(most, chi_squared)


def _chi_squared(q: float, one: float) -> float:
    return q**2 * math.expm1(min(one, 700.0))


def _cut(charge: TruncatedCharge) -> tuple[float, float]:
    """Chance that a sample is cut, and about that of a place to survive it."""
    from scipy.stats import binom

    cut = binom.sf(charge.largest - 1, charge.num_examples - 1, charge.sampling_rate)
    return float(cut), min(charge.largest / charge.num_examples, 1.0)


def _width(mu_squared: float) -> float:
    """Span of the privacy loss of a Gaussian mechanism, to ten standard deviations."""
    return mu_squared / 2 + 10 * math.sqrt(mu_squared)
