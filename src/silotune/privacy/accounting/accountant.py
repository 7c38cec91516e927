"""What privacy costs: epsilon of everything that was charged, by what was charged.

Epsilon comes from privacy loss distributions (Doroshenko et al. 2022, arXiv 2207.04380): the
discretised loss dominates the true one, so every epsilon here is an upper bound, tighter on a finer
grid. dp-accounting counts what others rely on (``library``), and whatever the rounding of its own
FFTs could show in; else the same is done in a fraction of the time (``privacy_loss``), and differs
by less than 1e-7 (a test holds both against each other). Gaussian mechanisms alone compose to one,
whose epsilon is known (Balle, Wang 2018, arXiv 1805.06530). Discrete noise costs what the
continuous noise costs that it is a rounding of (``discrete``). What is not proved is refused
(``supported``).

Units: sigma in clip norms, epsilon and delta are pure numbers. dp-accounting takes a second to
import, so that is done when needed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache, reduce
from itertools import accumulate, chain, repeat

from . import rdp
from .charges import AnyCharge, Charge, Relation, merged, order
from .discrete import SLACK, continuous, is_discrete
from .pld import count, interval, loss
from .supported import check_proved, one_gaussian

FINE, COARSE = 1e-4, 1e-3
"""Grids of the privacy loss: to certify with, to search with."""

MAX_SIGMA, MIN_SIGMA = 1e4, 1e-2
"""Noise multipliers that calibration considers; anything below is counted as no noise."""

MIN_DELTA = 1e-10
"""Convolutions by FFT do not resolve much less."""

_RESOLVED = 2e9
"""Of composed losses over delta: beyond it the rounding of FFTs may show in a figure (1e-7)."""

_KEPT = 2**15
"""Figures that are remembered: several of each of thousands of silos."""

Parts = tuple[tuple[AnyCharge, int], ...]
"""Charges that compose, and how many times each was made."""


def epsilon(
    charges: Iterable[AnyCharge],
    delta: float,
    *,
    relation: Relation = "add-remove",
    grid: float = FINE,
    library: bool = False,
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
        library: whether dp-accounting must count it itself.

    Raises:
        ValueError: if ``delta`` is out of range, or nothing is proved for these charges under
            this relation.
    """
    return epsilon_over_silos([charges], delta, relation=relation, grid=grid, library=library)


def epsilons(
    charges: Iterable[AnyCharge],
    deltas: Sequence[float],
    *,
    relation: Relation = "add-remove",
    grid: float = FINE,
    library: bool = False,
) -> tuple[float, ...]:
    """As ``epsilon``, at several deltas: the charges are composed once.

    Raises:
        ValueError: as ``epsilon``.
    """
    for delta in deltas:
        check_range(delta)
    return _epsilons(_parts([charges], relation), tuple(deltas), relation, grid, library)


def epsilon_over_silos(
    silos: Iterable[Iterable[AnyCharge]],
    delta: float,
    *,
    relation: Relation = "add-remove",
    grid: float = FINE,
    library: bool = False,
) -> float:
    """Epsilon at ``delta`` for somebody with one record at each of the silos; an upper bound.

    The charges of the silos compose. Streams of correlated noise at different silos are
    different streams, even where their numbers agree.

    Args:
        silos: the charges of each.
        delta: between 1e-10 and 1.
        relation: between neighbouring data sets.
        grid: interval of the privacy loss.
        library: whether dp-accounting must count it itself.

    Raises:
        ValueError: as ``epsilon``.
    """
    check_range(delta)
    [found] = _epsilons(_parts(silos, relation), (delta,), relation, grid, library)
    return found


def epsilon_rdp(
    charges: Iterable[AnyCharge], delta: float, *, relation: Relation = "add-remove"
) -> float:
    """Epsilon at ``delta`` by Renyi divergences: a second, looser upper bound, to check with.

    Infinite where they cannot say: without noise, for truncated samples, and for Poisson samples
    under replace-one.

    Raises:
        ValueError: as ``epsilon``.
    """
    check_range(delta)
    return _epsilon_rdp(_parts([charges], relation), delta, relation)


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
    check_range(delta)
    spent = [replace(per_round, steps=per_round.steps * (r + 1)) for r in range(rounds)]
    parts = _parts([spent[-1:]], relation)
    composed = parts and not besides and _is_composed(per_round)
    if not composed or not _is_resolved(parts, delta, relation):
        return [
            epsilon([*besides, charge], delta, relation=relation, grid=grid) for charge in spent
        ]
    slack = _slack(parts)
    one = loss(continuous(per_round), relation, interval(_continuous(parts), relation, grid))
    totals = accumulate(repeat(one, rounds), lambda total, one: total.compose(one))
    return [float(t.get_epsilon_for_delta(delta * (1 - slack))) + slack for t in totals]


def _parts(silos: Iterable[Iterable[AnyCharge]], relation: Relation) -> Parts:
    """What composes, in a fixed order.

    Raises:
        ValueError: if the price is not proved.
    """
    parts = Counter(chain.from_iterable(merged(charges) for charges in silos))
    check_proved(list(parts), relation)
    return tuple(sorted(parts.items(), key=lambda part: (order(part[0]), part[1])))


def check_range(delta: float) -> None:
    """Refuse a delta that no figure can be given for.

    Raises:
        ValueError: if it is not between 1e-10 and 1.
    """
    if not MIN_DELTA <= delta < 1.0:
        raise ValueError(f"target_delta: must be at least {MIN_DELTA:g} and below 1, not {delta}")


@lru_cache(maxsize=_KEPT)
def _epsilons(
    parts: Parts, deltas: tuple[float, ...], relation: Relation, grid: float, library: bool
) -> tuple[float, ...]:
    if not parts:
        return (0.0,) * len(deltas)
    if any(charge.noise_multiplier < MIN_SIGMA for charge, _ in parts):
        return (math.inf,) * len(deltas)
    slack = _slack(parts)
    library = library or not _is_resolved(parts, min(deltas), relation)
    at = _continuous_epsilon(_continuous(parts), relation, grid, library)
    return tuple(at(delta * (1 - slack)) + slack for delta in deltas)


def _is_resolved(parts: Parts, delta: float, relation: Relation) -> bool:
    """Whether two ways of rounding the same convolutions cannot be told from each other."""
    return sum(count(charge, relation, times) for charge, times in parts) <= _RESOLVED * delta


def _slack(parts: Parts) -> float:
    return SLACK if any(is_discrete(charge) for charge, _ in parts) else 0.0


def _continuous(parts: Parts) -> Parts:
    return tuple((continuous(charge), times) for charge, times in parts)


def _continuous_epsilon(
    parts: Parts, relation: Relation, grid: float, library: bool
) -> Callable[[float], float]:
    """Delta -> epsilon."""
    sigmas = [one_gaussian(charge, relation) for charge, times in parts for _ in range(times)]
    if None not in sigmas:
        mu = math.hypot(*(1.0 / sigma for sigma in sigmas if sigma))
        return lambda delta: _gaussian(mu, delta)
    step = interval(parts, relation, grid)
    losses = [loss(charge, relation, step, times, library=library) for charge, times in parts]
    total = reduce(lambda total, one: total.compose(one), losses)
    return lambda delta: float(total.get_epsilon_for_delta(delta))


def _gaussian(mu: float, delta: float) -> float:
    """Epsilon of one Gaussian mechanism of noise multiplier 1 / mu."""
    from dp_accounting import get_epsilon_gaussian

    found = float(get_epsilon_gaussian(1.0 / mu, delta))
    return found and found + 1e-9  # the search may end too low


@lru_cache(maxsize=_KEPT)
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
