"""What a book says: each set of records, its runs, and what they cost by run and for life.

It is for the owner of the records alone: which runs have records in common is itself private.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from silotune.privacy.accounting.accountant import COARSE
from silotune.privacy.accounting.charges import Relation
from silotune.privacy.ledger.entry import UPDATE

from .book import Book, Payment
from .budget import Account, Ceiling, Run
from .composition import Life, life


@dataclass(frozen=True, kw_only=True)
class RunSpent:
    """What one run charged one set of records.

    Attributes:
        run: its identifier.
        silo: by what name they took part.
        began: time of the first charge, ISO 8601, UTC.
        rounds: whose update was charged.
        releases: name -> how many were charged.
        relation: that it was priced under.
        delta: of the run.
        life: its cost alone, at most; infinite where the noise came from a seed.
    """

    run: str
    silo: str
    began: str
    rounds: int
    releases: dict[str, int]
    relation: Relation
    delta: float
    life: Life


@dataclass(frozen=True, kw_only=True)
class SetSpent:
    """What one set of records has paid.

    Attributes:
        name: of the set.
        where: it was declared to come from; empty if nobody said.
        whose: the silo's name.
        records: how many different ones.
        runs: that charged this very set, oldest first.
        life: at most, of all runs that may have had a record of it, whatever their sets are
            called, under the relation of its last run and at its smallest delta.
        relation: that life is priced under.
        delta: that life is at.
    """

    name: str
    where: str
    whose: str
    records: int
    runs: tuple[RunSpent, ...]
    life: Life
    relation: Relation
    delta: float


def spent(folder: Path, delta: float | None = None) -> list[SetSpent]:
    """All sets of a book, in the order in which they were first charged.

    Its figures are upper bounds on the coarse grid; certificates have those on the fine one.

    Args:
        folder: of the book.
        delta: for life; None = the smallest of the runs of a set.

    Raises:
        ValueError: in words, if there is no book, or it is damaged.
    """
    if not (folder / "book.jsonl").is_file():
        raise ValueError(
            f"lifetime: there is no book in {folder}; name its folder, or run something first"
        )
    book = Book(folder)
    paid: dict[str, list[Payment]] = {}
    for payment in book.payments:
        paid.setdefault(payment.records, []).append(payment)
    return [_set_spent(book, name, own, delta) for name, own in paid.items()]


def _set_spent(book: Book, name: str, own: list[Payment], delta: float | None) -> SetSpent:
    records, last = book.sets()[name], own[-1]
    at = min(payment.delta for payment in own) if delta is None else delta
    who = Run(silo=last.silo, relation=last.relation, delta=at)
    return SetSpent(
        name=name,
        where=records.where,
        whose=records.whose,
        records=len(records.digests),
        runs=tuple(_runs(own)),
        life=Account(book, records, who, Ceiling(epsilon=0.0, delta=at)).spent(last.run, COARSE),
        relation=last.relation,
        delta=at,
    )


def _runs(payments: list[Payment]) -> Iterator[RunSpent]:
    made: dict[tuple[str, str], list[Payment]] = {}
    for payment in payments:
        made.setdefault((payment.run, payment.silo), []).append(payment)
    for (run, silo), own in made.items():
        first, releases = own[0], [payment.release for payment in own]
        charges = [(payment.release, payment.charge) for payment in own]
        seeded = any(payment.seeded for payment in own)
        yield RunSpent(
            run=run,
            silo=silo,
            began=first.time,
            rounds=len({payment.round for payment in own if payment.release == UPDATE}),
            releases={name: releases.count(name) for name in dict.fromkeys(releases)},
            relation=first.relation,
            delta=first.delta,
            life=life((), charges, first.delta, first.relation, COARSE, seeded=seeded),
        )
