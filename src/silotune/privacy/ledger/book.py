"""Book: the charges of one account in one run, added up as they come.

Whatever is asked of it takes as long after a thousand rounds as after one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from silotune.privacy.accounting.charges import AnyCharge

from .entry import UPDATE, LedgerEntry


@dataclass(frozen=True, kw_only=True)
class ChargeLine:
    """Equal charges of one account, added up.

    Attributes:
        release: what they are for.
        times: how often the ledger holds one: rounds, and rounds that were trained again.
        charge: the steps of all of them.
    """

    release: str
    times: int
    charge: AnyCharge


Account = Sequence[ChargeLine]
"""All that one silo was charged, or every client under client-level privacy."""


class Book:
    """What the ledger of an account holds for one run.

    Attributes:
        entries: oldest first.
    """

    def __init__(self, entries: Iterable[LedgerEntry] = ()) -> None:
        self.entries: list[LedgerEntry] = []
        self._account: dict[tuple[str, AnyCharge], ChargeLine] = {}
        self._by_release: dict[str, list[LedgerEntry]] = {}
        self._by_round: dict[tuple[str, int], list[LedgerEntry]] = {}
        self._updated: set[int] = set()
        for entry in entries:
            self.add(entry)

    def add(self, entry: LedgerEntry) -> None:
        """One more charge."""
        self.entries.append(entry)
        self._by_release.setdefault(entry.release, []).append(entry)
        self._by_round.setdefault((entry.release, entry.round), []).append(entry)
        kind = (entry.release, replace(entry.charge, steps=0))
        known = self._account.get(kind) or ChargeLine(release=kind[0], times=0, charge=kind[1])
        steps = known.charge.steps + entry.charge.steps
        self._account[kind] = ChargeLine(
            release=entry.release, times=known.times + 1, charge=replace(entry.charge, steps=steps)
        )
        if entry.release == UPDATE:
            self._updated.add(entry.round)

    @property
    def account(self) -> Account:
        """All of it; charges that differ in their steps only are added up."""
        return list(self._account.values())

    @property
    def rounds(self) -> int:
        """In how many rounds an update was charged."""
        return len(self._updated)

    @property
    def steps(self) -> int:
        """Of all updates."""
        return sum(line.charge.steps for line in self.account if line.release == UPDATE)

    def of(self, release: str, round: int | None = None) -> Sequence[LedgerEntry]:
        """The charges for a release, oldest first.

        Args:
            release: which.
            round: of this round only; None for all.
        """
        if round is None:
            return self._by_release.get(release, ())
        return self._by_round.get((release, round), ())
