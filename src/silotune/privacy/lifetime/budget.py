"""An account: the records of one silo in a book, and whether they can pay for one more release.

A ceiling is asked three times: of the whole run before it trains, of each release before anything
is computed for it, and again as it is written down, when somebody else may have spent meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from silotune.privacy.accounting.accountant import COARSE, FINE
from silotune.privacy.accounting.charges import AnyCharge, Relation
from silotune.privacy.ledger.entry import LedgerEntry

from .book import Book, BookError, Payment
from .choice import Lifetime
from .composition import Earlier, Life, Priced, life, priced, summed
from .record_set import RecordSet, histories

OVER_LIFE = "have paid all that they may in their life"
"""What is said of records that can pay no more."""

BROUGHT = ""
"""Name of the set of charges that came with something else than a run on this machine."""


class CeilingReached(ValueError):
    """What is asked for would cost records more in their life than their owner allows.

    That a silo says so is an event that epsilon does not cover: whether its records are those of
    an earlier run decides it.
    """


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """The most that records may pay in their life."""

    epsilon: float
    delta: float


def ceiling_of(lifetime: Lifetime) -> Ceiling | None:
    """What an owner chose; None for no ceiling."""
    if lifetime.max_epsilon is None:
        return None
    return Ceiling(epsilon=lifetime.max_epsilon, delta=lifetime.max_delta)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one run is to one silo.

    Attributes:
        silo: its name there.
        relation: that charges are priced under.
        delta: of the run.
        seeded: whether its noise comes from a seed.
        planned: all that the whole run will charge, at worst.
    """

    silo: str
    relation: Relation
    delta: float
    seeded: bool = False
    planned: tuple[Priced, ...] = ()


class Account:
    """The records of one silo in a book: what they have paid, and whether they can pay more.

    The book is read again only where it has grown, and the charges of other runs are composed
    again only when there are new ones: as long as this run keeps to its plan, a round costs a line
    of the book and no accountant.
    """

    def __init__(
        self,
        book: Book,
        records: RecordSet,
        run: Run,
        ceiling: Ceiling | None = None,
        brought: Mapping[str, Earlier] | None = None,
    ) -> None:
        """Nothing is written before the first charge.

        Args:
            book: of the silo.
            records: that pay.
            run: how.
            ceiling: None = everything is recorded, and nothing refused.
            brought: run -> what it charged these records elsewhere; counted unless the book has
                that run for them.
        """
        self._book, self.records, self._run, self._ceiling = book, records, run, ceiling
        self._brought = brought or {}
        self._known = 0  # sets that groups were made of
        self._groups = [frozenset({records.id, BROUGHT})]
        self._followed: set[str] = set()  # runs whose ledgers were held against the book
        self._plans: dict[str, tuple[int, bool]] = {}

    def follow(self, run: str, ledger: Iterable[LedgerEntry]) -> None:
        """Hold the book, once for a run, against the silo's own ledger of it.

        A charge is in the book before it is in the ledger, and nobody charges the next one before
        both have it. So a crash leaves the book ahead by its newest payment, and of the rounds from
        the ledger's newest on by no other. A ledger that lacks more has lost what it had.

        Args:
            run: that is resumed, or has begun.
            ledger: its charges in the silo's own ledger.

        Raises:
            BookError: if one of them lacks what the other has.
        """
        with self._book.locked():
            self._catch_up()
            self._follow(run, ledger)

    def check(
        self, run: str, release: str, charge: AnyCharge, ledger: Iterable[LedgerEntry]
    ) -> None:
        """See that a charge would stay below the ceiling, before anything is computed for it.

        Args:
            run: that charges.
            release: what for.
            charge: its price.
            ledger: the charges of the run in the silo's own ledger.

        Raises:
            CeilingReached: if it would not.
            BookError: as ``follow``.
        """
        with self._book.locked():
            self._catch_up()
            self._follow(run, ledger)
            self._refuse_above(run, (release, charge))

    def pay(self, entry: LedgerEntry) -> None:
        """Write a charge down for life; only when this returns may the run's ledger have it.

        Raises:
            CeilingReached: if somebody else has spent meanwhile what it needs.
            BookError: if it cannot be written.
        """
        run = self._run
        payment = Payment(
            records=self.records.id,
            run=entry.run,
            silo=run.silo,
            round=entry.round,
            attempt=entry.attempt,
            release=entry.release,
            charge=entry.charge,
            relation=run.relation,
            delta=run.delta,
            seeded=run.seeded,
            time=entry.time,
        )
        with self._book.locked():
            self._catch_up()
            self._refuse_above(entry.run, (entry.release, entry.charge))
            self._book.append(payment, self.records)
            self._catch_up()

    def check_plan(self, run: str = "", charged: Iterable[Priced] = ()) -> None:
        """See that the whole run fits below the ceiling, and that the book lacks nothing of it.

        Args:
            run: one that is resumed; empty for a new one.
            charged: what the run knows to have charged, where no ledger was followed.

        Raises:
            ValueError: in words and figures, with the cure.
        """
        with self._book.locked():
            self._catch_up()
            self._refuse_lost(run, charged)
        if self._ceiling is None:
            return
        of = f"lifetime: the records of {self._silo}"
        if self._run.seeded:
            raise ValueError(
                f"{of} have a ceiling, and insecure_seeded_noise protects nothing; leave one out"
            )
        if self._below(run, self._run.planned):
            return
        before, after = self._worst(run, ()), self._worst(run, self._run.planned)
        limit = f"max_epsilon {self._ceiling.epsilon:g} at max_delta {self._ceiling.delta:g}"
        if after.because:
            raise ValueError(f"{of} cannot keep below {limit}: {after.because}")
        raise ValueError(
            f"{of} have paid epsilon {before.epsilon:.4g} in {before.runs} earlier runs, and this "
            f"one would make it {after.epsilon:.4g}, above {limit}; take fewer rounds, more noise "
            "or other records, or raise max_epsilon"
        )

    def elsewhere(self, run: str, ledger: Iterable[Priced]) -> list[Earlier]:
        """What the records from the same declared place paid beside what a run's ledger has.

        That is what other runs charged, what was brought along, and what this run was paid for
        twice: after a crash, or because its folder was put back. It is the same whatever the
        records are, so that it may be published.

        Args:
            run: that is asked about.
            ledger: its charges in the silo's own ledger.
        """
        with self._book.locked():
            self._catch_up()
            sets = dict(self._book.sets())
        placed = {name for name, other in sets.items() if self.records.shares_place(other)}
        others = self._earlier(run, frozenset(placed | {BROUGHT}))
        again = summed(self._own(run)) - summed(ledger)
        return [*others, Earlier(run, tuple(priced(again)), self._run.seeded)] if again else others

    def is_exposed(self) -> bool:
        """Whether noise from a seed has left some of the records without protection."""
        with self._book.locked():
            self._catch_up()
        exposed = {part.records for part in self._book.sums.seeded}
        return any(group & exposed for group in self._groups)

    def spent(self, run: str = "", grid: float = FINE) -> Life:
        """What the records have paid in all runs that they may have been in.

        Args:
            run: of which this silo's charges are their own.
            grid: of the privacy loss; the figure is an upper bound on any.
        """
        with self._book.locked():
            self._catch_up()
        return self._worst(run, self._own(run), grid)

    def _refuse_above(self, run: str, more: Priced) -> None:
        if self._ceiling is None:
            return
        within = self._plan_fits(run, more) or self._below(run, [*self._own(run), more])
        if self._run.seeded or not within:
            raise CeilingReached(f"lifetime: the records of {self._silo} {OVER_LIFE}")

    def _plan_fits(self, run: str, more: Priced) -> bool:
        """Whether the run keeps to its plan, and that fits on top of what others have charged."""
        after, planned = summed([*self._own(run), more]), summed(self._run.planned)
        if any(steps > planned[kind] for kind, steps in after.items()):
            return False
        others = len(self._book.payments) - self._book.sums.payments[run]
        if self._plans.get(run, (-1, False))[0] != others:
            self._plans[run] = others, self._below(run, self._run.planned)
        return self._plans[run][1]

    def _below(self, run: str, own: Sequence[Priced]) -> bool:
        """Whether every record stays below the ceiling; figures on both grids are upper bounds."""
        assert self._ceiling is not None
        most = self._ceiling.epsilon
        return any(self._worst(run, own, grid).epsilon <= most for grid in (COARSE, FINE))

    def _worst(self, run: str, own: Sequence[Priced], grid: float = FINE) -> Life:
        """Of the record that has paid most, ``run`` having charged ``own``."""
        delta = self._ceiling.delta if self._ceiling else self._run.delta
        seeded = any((part.run, part.silo) == (run, self._silo) for part in self._book.sums.seeded)
        different = {self._alike(run, group): group for group in self._groups}
        lives = [
            life(self._earlier(run, group), own, delta, self._run.relation, grid, seeded=seeded)
            for group in different.values()
        ]
        return max(lives, key=lambda one: (one.epsilon, one.runs))

    def _own(self, run: str) -> list[Priced]:
        """What this silo was charged in a run, whichever its records were."""
        sums = self._book.sums.of
        parts = [of for part, of in sums.items() if (part.run, part.silo) == (run, self._silo)]
        return priced(sum(parts, Counter[Priced]()))

    def _alike(self, run: str, group: frozenset[str]) -> Hashable:
        """Equal for groups that other runs charged alike, whatever these are called."""
        kinds: dict[tuple[str, str], list[int]] = {}
        for part in self._book.sums.parts(group):
            if part.run != run:
                kinds.setdefault((part.run, part.silo), []).append(self._book.sums.kind(part))
        runs = {run for run, _ in kinds}
        charged = Counter(tuple(sorted(each)) for each in kinds.values())
        return len(runs), frozenset(charged.items()), frozenset(runs & self._brought.keys())

    def _earlier(self, run: str, group: frozenset[str]) -> list[Earlier]:
        """What other runs, or silos of them, charged the sets of a group."""
        sums, seeded = dict[tuple[str, str], Counter[Priced]](), set[tuple[str, str]]()
        for part in self._book.sums.parts(group):
            who = (part.run, part.silo)
            if part.run != run:
                sums.setdefault(who, Counter()).update(self._book.sums.of[part])
            if part in self._book.sums.seeded:
                seeded.add(who)
        brought = [
            charged
            for name, charged in self._brought.items()
            if BROUGHT in group and name not in {run, *(known for known, _ in sums)}
        ]
        known = [Earlier(who[0], tuple(priced(of)), who in seeded) for who, of in sums.items()]
        return known + brought

    def _catch_up(self) -> None:
        """See which records of the book's sets are ours, where there are new ones."""
        if self._book.sums.sets != self._known:
            groups = histories(self.records, self._book.sets())
            self._known = self._book.sums.sets
            self._groups = [group | {BROUGHT} for group in groups]
            self._plans.clear()

    def _follow(self, run: str, ledger: Iterable[LedgerEntry]) -> None:
        if run in self._followed:
            return
        entries = list(ledger)
        self._refuse_lost(run, [(entry.release, entry.charge) for entry in entries])
        who = (run, self._silo)
        newest = max((entry.round for entry in entries), default=0)
        # An older round that the ledger lacks was cut short, and the silo went on without it.
        paid = [p for p in self._book.payments if (p.run, p.silo) == who and p.round >= newest]
        known = {*map(_which, entries), *map(_which, paid[-1:])}
        if {*map(_which, paid)} - known:
            raise BookError(
                f"lifetime: {self._book.folder}: was paid for more of this run than the ledger of "
                f"{self._silo} has, so that the folder of the run was put back from an older copy; "
                "what was charged since stays charged. Bring the newest folder back, or begin a "
                "new run"
            )
        self._followed.add(run)

    def _refuse_lost(self, run: str, charged: Iterable[Priced]) -> None:
        """See that the book has every charge that the run knows of."""
        if lost := summed(charged) - summed(self._own(run)):
            raise BookError(
                f"lifetime: {self._book.folder}: lacks {lost.total()} steps of this run that the "
                f"ledger of {self._silo} has, so that what its records have paid in their life is "
                "not known. Bring the folder back from a copy, or from where the run began"
            )

    @property
    def _silo(self) -> str:
        return self._run.silo


def _which(charge: Payment | LedgerEntry) -> tuple[str, int, int]:
    """By what a charge is told from the others of its run and silo."""
    return charge.release, charge.round, charge.attempt
