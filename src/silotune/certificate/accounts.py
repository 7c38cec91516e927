"""Accounts: the charges of an account in a certificate's form, and what they come to.

Whoever makes a certificate and whoever checks one compute with these. A silo's records are in one
of two tables, which pay for different releases (``privacy.ledger.noisy_counts``); what an account
costs is what the table costs that has paid more.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from silotune.privacy import AnyCharge, LedgerEntry, Relation
from silotune.privacy.accounting.accountant import (
    COARSE,
    FINE,
    epsilon_over_silos,
    epsilon_rdp,
    epsilons,
)
from silotune.privacy.accounting.charges import from_json, to_json
from silotune.privacy.accounting.dominance import dearer
from silotune.privacy.ledger.book import Account, Book, ChargeLine
from silotune.privacy.ledger.entry import COUNT, UPDATE
from silotune.privacy.ledger.noisy_counts import by_table
from silotune.runs.unheard import Hearing

MOST_UNLIKE = 32
"""Charges that are composed as they are, while a run goes on."""

NEAR = 1e-6
"""By more than which the two ways of counting never differ."""

FALSE_ALARMS = 0.01
"""For which a certificate says what an attack can reach."""

_DELTAS = (1e-3, 0.01, 0.05, 0.2, 0.5)


def account_of(entries: Iterable[LedgerEntry]) -> Account:
    """A ledger's charges; those that differ in their steps only are added up."""
    return Book(entries).account


def to_lines(account: Account) -> list[dict[str, Any]]:
    """For the certificate."""
    return [
        {"release": line.release, "times": line.times, "charge": to_json(line.charge)}
        for line in account
    ]


def from_lines(lines: Iterable[Mapping[str, Any]]) -> list[ChargeLine]:
    """The inverse of ``to_lines``.

    Raises:
        ValueError: if a line is not one of ours.
    """
    return [_charge_line(line) for line in lines]


def together(charged: Account, presumed: Account) -> Account:
    """Both, as one account: charges that differ in their steps only are added up."""
    found: dict[tuple[str, AnyCharge], ChargeLine] = {}
    for line in (*charged, *presumed):
        kind = (line.release, replace(line.charge, steps=0))
        known = found.get(kind) or ChargeLine(release=kind[0], times=0, charge=kind[1])
        steps = known.charge.steps + line.charge.steps
        found[kind] = ChargeLine(
            release=line.release,
            times=known.times + line.times,
            charge=replace(line.charge, steps=steps),
        )
    return list(found.values())


def presumed(hearing: Hearing, book: Book, prices: Mapping[str, AnyCharge]) -> Account:
    """What a site may have charged besides what it has told: every open order once.

    Args:
        hearing: of the site.
        book: what it has told.
        prices: of each release.
    """
    times = presumed_times(hearing, book, prices)
    return [
        ChargeLine(release=release, times=n, charge=replace(price, steps=n * price.steps))
        for release, n in times.items()
        for price in [prices[release]]
    ]


def presumed_times(hearing: Hearing, book: Book, releases: Collection[str]) -> dict[str, int]:
    """How often a site may have charged for each release, besides what it has told.

    Args:
        hearing: of the site.
        book: what it has told.
        releases: that have a price.
    """
    asked = Counter((order.release, order.round) for order in hearing.open)
    times = dict.fromkeys(sorted(releases), 0)
    for (release, round), orders in asked.items():
        if release in times:
            times[release] += max(0, orders - len(book.of(release, round)))
    if COUNT in times and times.get(UPDATE) and not book.of(COUNT):
        times[COUNT] = 1
    return {release: n for release, n in times.items() if n}


def cost(
    account: Account,
    delta: float,
    relation: Relation,
    grid: float = FINE,
    *,
    library: bool = False,
) -> float:
    """Epsilon of any one unit of an account."""
    return by_table(_pairs(account)).epsilon(delta, relation=relation, grid=grid, library=library)


def cost_rdp(account: Account, delta: float, relation: Relation) -> float:
    """The same by Renyi divergences."""
    return max(epsilon_rdp(c, delta, relation=relation) for c in by_table(_pairs(account)))


def cost_together(
    accounts: Iterable[Account], delta: float, relation: Relation, grid: float = FINE
) -> float:
    """Epsilon of somebody with at most one record at each silo, in whichever table it is.

    On a grid that a run is only followed on, many unlike accounts cost no more than is said: they
    are counted as dearer ones of few kinds (``dominance.dearer``), as they are in every round.
    """
    charges = [[line.charge for line in account] for account in accounts]
    if grid > FINE and len({charge for own in charges for charge in own}) > MOST_UNLIKE:
        charges = [[dearer(charge) for charge in own] for own in charges]
    library = grid <= FINE
    return epsilon_over_silos(charges, delta, relation=relation, grid=grid, library=library)


def membership_bound(
    accounts: Iterable[Account], relation: Relation, *, library: bool = False
) -> dict[str, float]:
    """The most that any attack on any account can reach (Kairouz et al. 2015, arXiv 1311.0776).

    A mechanism that is (epsilon, delta)-private for many deltas lets no test with false alarms f
    recognise more than the least of exp(epsilon) f + delta.

    Args:
        accounts: of a run.
        relation: between neighbouring data sets.
        library: whether dp-accounting must count what decides, the account that can be attacked
            best.
    """
    tables = {tuple(column) for account in accounts for column in by_table(_pairs(account))}
    powers = {charges: _power(charges, relation, library=False) for charges in tables}
    at_most = max(powers.values(), default=0.0)
    if library:
        best = [c for c, power in powers.items() if power >= at_most * (1.0 - NEAR)]
        at_most = max((_power(c, relation, library=True) for c in best), default=0.0)
    return {"false_alarms": FALSE_ALARMS, "at_most": at_most}


def sampling_rate(charge: AnyCharge) -> float:
    """Chance to take part in a step, as far as it is counted on."""
    return getattr(charge, "sampling_rate", 1.0)


def _power(charges: Sequence[AnyCharge], relation: Relation, *, library: bool) -> float:
    if not charges:
        return FALSE_ALARMS
    spent = epsilons(charges, _DELTAS, relation=relation, grid=COARSE, library=library)
    bounds = [
        math.exp(min(epsilon, 50.0)) * FALSE_ALARMS + delta
        for epsilon, delta in zip(spent, _DELTAS, strict=True)
    ]
    return min(1.0, *bounds)


def _pairs(account: Account) -> list[tuple[str, AnyCharge]]:
    return [(line.release, line.charge) for line in account]


def _charge_line(line: Mapping[str, Any]) -> ChargeLine:
    match line:
        case {"release": str(release), "times": int(times), "charge": charge} if times >= 1:
            return ChargeLine(release=release, times=times, charge=from_json(charge))
    raise ValueError("a charge must say its release, how many times, and the charge itself")
