"""The coins: which records each step of a real run read.

Accounting is for coins that are independent over records, steps, rounds and silos, and that come up
at the claimed rate. Every test is exact: given some of the coins, the others are binomial.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
from scipy.stats import binom

from silotune.privacy import ClientLevel, ExampleLevel, Poisson, Rotation, TruncatedPoisson

from .checks import Check, Flags, both, shared_coins
from .transcript import SEED

Sampled = ExampleLevel | ClientLevel
"""Whoever draws: a silo its records, or the server its clients."""


def coins_of(read: Sequence[Sequence[int]], records: int) -> Flags:
    """(steps, records): whether a step read a record.

    Args:
        read: the records that every step read.
        records: how many there are.
    """
    flags = np.zeros((len(read), records), dtype=bool)
    for step, indices in enumerate(read):
        flags[step, list(indices)] = True
    return flags


def sampling_checks(
    read: Mapping[str, Sequence[Sequence[int]]],
    mechanisms: Mapping[str, Sampled],
    records: Mapping[str, int],
    steps: int,
) -> list[Check]:
    """All of them.

    Args:
        read: by silo, the records that every step read.
        mechanisms: as claimed, by silo.
        records: of every silo.
        steps: that every silo took.
    """
    checks = []
    for silo, own in read.items():
        twice = any(len(set(step)) < len(step) for step in own)
        checks.append(Check(f"{silo} took {len(own)} steps of {steps}", float(len(own) == steps)))
        checks.append(Check(f"no step of {silo} reads a record twice", float(not twice)))
    flags = {silo: coins_of(own, records[silo]) for silo, own in read.items()}
    for silo, coins in flags.items():
        match mechanisms[silo].sampling:
            case Rotation(turns):
                checks += _turns(silo, coins, turns)
            case Poisson(rate):
                checks += [*_independent(silo, coins, rate), *_as_varied(silo, coins, rate)]
            case TruncatedPoisson(rate, largest, _):
                most = int(coins.sum(axis=1).max(initial=0))
                checks += _independent(silo, coins, rate)
                checks.append(Check(f"no batch of {silo} is too large", float(most <= largest)))
    return [*checks, *_between_silos(flags, mechanisms)]


def many_coins(mechanism: ExampleLevel, records: int, steps: int) -> list[list[int]]:
    """What the mechanism itself draws in one long round: more coins than a transcript has.

    A rate that is a twentieth too high shows in a million of them.

    Args:
        mechanism: whose records do not rotate.
        records: to draw from.
        steps: of the round.
    """
    draws = mechanism.draws(SEED, None)
    return [list(batch) for batch in mechanism.batches(records, steps, draws)]


def times_claimed(flags: Flags, rate: float) -> float:
    """How often coins came up, in units of what is claimed."""
    return float(flags.mean()) / rate


def rate_of(mechanism: Sampled) -> float:
    """Chance of a record to be in a step."""
    sampling = mechanism.sampling
    return 1.0 / sampling.turns if isinstance(sampling, Rotation) else sampling.rate


def _independent(silo: str, coins: Flags, rate: float) -> list[Check]:
    """The rate; and that neither steps nor records hang together. Truncation only thins."""
    if rate >= 1.0:
        return []
    checks = [
        Check(
            f"coins of {silo} come up no more often",
            float(binom.sf(coins.sum() - 1, coins.size, rate)),
        )
    ]
    checks.append(Check(f"coins of {silo} in any two steps", _likest(coins, coins, rate)))
    for gap in range(1, len(coins) // 2 + 1):
        first = np.flatnonzero(np.arange(len(coins) - gap) // gap % 2 == 0)  # none on both sides
        what = f"coins of {silo} in steps {gap} apart"
        checks.append(Check(what, shared_coins(coins[first], coins[first + gap], rate)))
    n = coins.shape[1]
    for gap in (2**k for k in range(max(1, n).bit_length() - 1)):
        first = (np.arange(n - gap) // gap) % 2 == 0  # no record is on both sides
        given, fresh = coins[:, : n - gap][:, first], coins[:, gap:][:, first]
        what = f"coins of {silo} for records {gap} apart"
        checks.append(Check(what, shared_coins(given, fresh, rate)))
    per_record = coins.sum(axis=0)
    luckiest = float(binom.sf(per_record.max(initial=0) - 1, len(coins), rate))
    checks.append(Check(f"no record of {silo} comes up all the time", min(1.0, n * luckiest)))
    return checks


def _as_varied(silo: str, coins: Flags, rate: float) -> Iterator[Check]:
    """Batches cut from a shuffled list are of one size; true ones are close to it only so often."""
    sizes, n = coins.sum(axis=1), coins.shape[1]
    if rate >= 1.0:
        yield Check(f"batches of {silo} hold every record", float((sizes == n).all()))
        return
    mean = n * rate
    for width in (0.0, 0.5 * (mean * (1.0 - rate)) ** 0.5):
        low, high = np.floor(mean - width), np.ceil(mean + width)
        near = float(binom.cdf(high, n, rate) - binom.cdf(low - 1, n, rate))
        hits, steps = int(((sizes >= low) & (sizes <= high)).sum()), len(sizes)
        chance = both(float(binom.cdf(hits, steps, near)), float(binom.sf(hits - 1, steps, near)))
        yield Check(f"batches of {silo} vary in size as they must", chance)


def _turns(silo: str, coins: Flags, turns: int) -> list[Check]:
    """One turn a cycle, always the same."""
    steps = len(coins)
    whole = coins[: steps // turns * turns].reshape(-1, turns, coins.shape[1])
    once = bool((whole.sum(axis=1) == 1).all())
    same = bool((coins[turns:] == coins[: steps - turns]).all()) if steps > turns else True
    often = bool((coins[:turns].sum(axis=0) <= 1).all())
    return [
        Check(f"records of {silo} have one turn in {turns}", float(once and often)),
        Check(f"records of {silo} keep their turn", float(same)),
    ]


def _between_silos(flags: Mapping[str, Flags], mechanisms: Mapping[str, Sampled]) -> list[Check]:
    """Two silos must not toss the same coins, in the same step or in any other."""
    checks = []
    for a, b in combinations(sorted(flags), 2):
        sampling, rate = mechanisms[b].sampling, rate_of(mechanisms[b])
        if isinstance(sampling, Rotation) or rate >= 1.0:
            continue
        n = min(flags[a].shape[1], flags[b].shape[1])
        given, fresh = flags[a][:, :n], flags[b][:, :n]
        steps = min(len(given), len(fresh))
        checks.append(
            Check(f"coins of {a} and of {b}", shared_coins(given[:steps], fresh[:steps], rate))
        )
        worst = _likest(given, fresh, rate, apart=False)
        checks.append(Check(f"coins of any step of {a} and of any step of {b}", worst))
    return checks


def _likest(given: Flags, fresh: Flags, rate: float, *, apart: bool = True) -> float:
    """Chance of the two steps that are most alike, all pairs allowed for.

    Args:
        given: (steps, n).
        fresh: (steps, n) with coins of ``rate``.
        rate: as claimed.
        apart: whether only later steps are compared with a given one, since both are of one silo.
    """
    both_up = given.astype(np.float64) @ fresh.astype(np.float64).T
    chances = binom.sf(both_up - 1, given.sum(axis=1)[:, None], rate)
    if apart:
        chances = chances[np.triu_indices(len(given), 1)]
    return float(min(1.0, chances.min(initial=1.0) * chances.size))
