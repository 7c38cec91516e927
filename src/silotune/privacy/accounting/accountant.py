"""What privacy costs: epsilon of everything that was charged, by what was charged.

Epsilon comes from privacy loss distributions (dp-accounting; Doroshenko et al. 2022, arXiv
2207.04380): the discretised loss dominates the true one, so every epsilon here is an upper bound,
tighter on a finer grid. Gaussian mechanisms alone compose to one, whose epsilon is known (Balle,
Wang 2018, arXiv 1805.06530). Discrete noise costs what the continuous noise costs that it is a
rounding of (``discrete``). What is not proved is refused (``supported``).

Units: sigma in clip norms, epsilon and delta are pure numbers. Importing dp-accounting takes a
second, so it is done when needed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache, reduce
from itertools import accumulate, chain, repeat

from . import rdp
from .charges import AnyCharge, Charge, Relation, merged
from .discrete import SLACK, continuous, is_discrete
from .pld import interval, loss
from .supported import check_proved, one_gaussian

FINE, COARSE = 1e-4, 1e-3
"""Grids of the privacy loss: to certify with, to search with."""

MAX_SIGMA, MIN_SIGMA = 1e4, 1e-2
"""Noise multipliers that calibration considers; anything below is counted as no noise."""

MIN_DELTA = 1e-10
"""Convolutions by FFT do not resolve much less."""

Parts = tuple[tuple[AnyCharge, int], ...]
"""Charges that compose, and how many times each was made."""


def epsilon(
    charges: Iterable[AnyCharge],
    delta: float,
    *,
    relation: Relation = "add-remove",
    grid: float = FINE,
) -> float:
    """Epsilon at ``delta`` of all that one silo was charged in one run; an upper bound.

    0 without steps, infinity without noise (sigma below 0.01). Results are remembered.

    Args:
        charges: in any order; those that differ in their steps only are merged.
        delta: between 1e-10 and 1.
        relation: between neighbouring data sets.
        grid: interval of the privacy loss. It is refined where one step loses less than that
            (epsilon below some hundredths), and coarsened where the loss is so wide (epsilon in
            the tens and beyond) that the difference cannot be seen.

    Raises:
        ValueError: if ``delta`` is out of range, or nothing is proved for these charges under
            this relation.
    """
    return epsilon_over_silos([charges], delta, relation=relation, grid=grid)


def epsilon_over_silos(
    silos: Iterable[Iterable[AnyCharge]],
    delta: float,
    *,
    relation: Relation = "add-remove",
    grid: float = FINE,
) -> float:
    """Epsilon at ``delta`` for somebody with one record at each of the silos; an upper bound.

    The charges of the silos compose. Streams of correlated noise at different silos are
    different streams, even where their numbers agree.

    Args:
        silos: the charges of each.
        delta: between 1e-10 and 1.
        relation: between neighbouring data sets.
        grid: interval of the privacy loss.

    Raises:
        ValueError: as ``epsilon``.
    """
    return _epsilon(_parts(silos, delta, relation), delta, relation, grid)


def epsilon_rdp(
    charges: Iterable[AnyCharge], delta: float, *, relation: Relation = "add-remove"
) -> float:
    """Epsilon at ``delta`` by Renyi divergences: a second, looser upper bound, to check with.

    Infinite where they cannot say: without noise, for truncated samples, and for Poisson samples
    under replace-one.

    Raises:
        ValueError: as ``epsilon``.
    """
    return _epsilon_rdp(_parts([charges], delta, relation), delta, relation)


def epsilon_by_round(
    per_round: AnyCharge,
    rounds: int,
    delta: float,
    *,
    relation: Relation = "add-remove",
    grid: float = COARSE,
    besides: Sequence[AnyCharge] = (),
) -> list[float]:
    """Epsilon at ``delta`` after 1, 2, ..., ``rounds`` rounds: ``rounds`` upper bounds.

    Args:
        per_round: what each round charges.
        rounds: how many; 0 or more.
        delta: between 1e-10 and 1.
        relation: between neighbouring data sets.
        grid: interval of the privacy loss.
        besides: what the same records pay once for other releases.

    Raises:
        ValueError: as ``epsilon``, or if ``rounds`` is negative.
    """
    if rounds < 0:
        raise ValueError(f"rounds: must not be negative, not {rounds}")
    spent = [replace(per_round, steps=per_round.steps * (r + 1)) for r in range(rounds)]
    parts = _parts([spent[-1:]], delta, relation)
    if not parts or besides or not _is_composed(per_round):
        return [
            epsilon([*besides, charge], delta, relation=relation, grid=grid) for charge in spent
        ]
    slack = _slack(parts)
    one = loss(continuous(per_round), relation, interval(_continuous(parts), relation, grid))
    totals = accumulate(repeat(one, rounds), lambda total, one: total.compose(one))
    return [float(t.get_epsilon_for_delta(delta * (1 - slack))) + slack for t in totals]


def _parts(silos: Iterable[Iterable[AnyCharge]], delta: float, relation: Relation) -> Parts:
    """What composes, in a fixed order.

    Raises:
        ValueError: if the delta is out of range or the price is not proved.
    """
    check_range(delta)
    parts = Counter(chain.from_iterable(merged(charges) for charges in silos))
    check_proved(list(parts), relation)
    return tuple(sorted(parts.items(), key=repr))


def check_range(delta: float) -> None:
    """Refuse a delta that no figure can be given for.

    Raises:
        ValueError: if it is not between 1e-10 and 1.
    """
    if not MIN_DELTA <= delta < 1.0:
        raise ValueError(f"target_delta: must be at least {MIN_DELTA:g} and below 1, not {delta}")


@lru_cache(maxsize=4096)
def _epsilon(parts: Parts, delta: float, relation: Relation, grid: float) -> float:
    if not parts:
        return 0.0
    if any(charge.noise_multiplier < MIN_SIGMA for charge, _ in parts):
        return math.inf
    slack = _slack(parts)
    return _epsilon_continuous(_continuous(parts), delta * (1 - slack), relation, grid) + slack


def _slack(parts: Parts) -> float:
    return SLACK if any(is_discrete(charge) for charge, _ in parts) else 0.0


def _continuous(parts: Parts) -> Parts:
    return tuple((continuous(charge), times) for charge, times in parts)


def _epsilon_continuous(parts: Parts, delta: float, relation: Relation, grid: float) -> float:
    sigmas = [one_gaussian(charge, relation) for charge, times in parts for _ in range(times)]
    if None not in sigmas:
        return _gaussian(math.hypot(*(1.0 / sigma for sigma in sigmas if sigma)), delta)
    step = interval(parts, relation, grid)
    losses = [loss(charge, relation, step, times) for charge, times in parts]
    total = reduce(lambda total, one: total.compose(one), losses)
    return float(total.get_epsilon_for_delta(delta))


def _gaussian(mu: float, delta: float) -> float:
    """Epsilon of one Gaussian mechanism of noise multiplier 1 / mu."""
    from dp_accounting import get_epsilon_gaussian

    found = float(get_epsilon_gaussian(1.0 / mu, delta))
    return found and found + 1e-9  # the search may end too low


def _epsilon_rdp(parts: Parts, delta: float, relation: Relation) -> float:
    if not parts:
        return 0.0
    curves = [times * _curve(charge, relation) for charge, times in parts]
    return rdp.to_epsilon(sum(curves[1:], start=curves[0]), delta)


def _curve(charge: AnyCharge, relation: Relation) -> rdp.Curve:
    if charge.noise_multiplier < MIN_SIGMA:
        return rdp.unknown()
    if sigma := one_gaussian(charge, relation):
        return rdp.gaussian(sigma)
    if not isinstance(charge, Charge) or relation == "replace-one":
        return rdp.unknown()
    return charge.steps * rdp.subsampled(charge.sampling_rate, charge.noise_multiplier)


def _is_composed(charge: AnyCharge) -> bool:
    """Whether its privacy loss is that of its steps, composed."""
    noisy = charge.noise_multiplier >= MIN_SIGMA
    return noisy and one_gaussian(charge, "add-remove") is None
