"""Lifetimes: every silo's records found in its book for life, before anything trains.

The silos of a simulation share one book, as they share one machine. A record is told by what it
says, so it does not matter to which silo a run deals it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path

from silotune.core.files import read_json
from silotune.data.messages import listed
from silotune.data.record_digests import record_digests
from silotune.privacy import ExampleDP
from silotune.privacy.ledger.chain import read_ledger
from silotune.privacy.ledger.entry import COUNT, METRIC, UPDATE
from silotune.privacy.ledger.store import LEDGER
from silotune.privacy.lifetime.book import Book
from silotune.privacy.lifetime.budget import Account, Run, ceiling_of
from silotune.privacy.lifetime.composition import Priced
from silotune.privacy.lifetime.record_set import RecordSet, keyed
from silotune.privacy.planned_charges import worst_case_steps
from silotune.runs.folder import RunFolder
from silotune.terms import Agreement

from .built import BuiltFederation
from .description import Description
from .trained_before import brought

Accounts = Mapping[str, Account]
"""Of every silo; empty where no book is kept."""


def open_accounts(built: BuiltFederation) -> Accounts:
    """Find every silo's records in the book; nothing is written into it but its key.

    Raises:
        ValueError: in words, if the book cannot be read or written.
    """
    privacy, lifetime = built.terms.privacy, built.federation.lifetime
    if not built.federation.is_recorded:
        return {}
    assert isinstance(privacy, ExampleDP)
    book, ceiling = Book(lifetime.place), ceiling_of(lifetime)

    def account(silo: str) -> Account:
        tables = built.tables[silo]
        parts = [table for table in (tables.train, tables.valid) if table is not None]
        records = RecordSet(
            where=built.federation.records.place_of(silo),
            whose=silo,
            digests=keyed(chain.from_iterable(map(record_digests, parts)), book.key),
        )
        run = Run(
            silo=silo,
            relation=privacy.relation,
            delta=privacy.target_delta,
            seeded=privacy.insecure_seeded_noise,
            planned=tuple(_planned(built.agreement, silo, privacy)),
        )
        return Account(book, records, run, ceiling, brought(built.terms, silo))

    return {silo: account(silo) for silo in built.tables}


def refuse_beyond(accounts: Accounts, home: Callable[[str], Path], run: str = "") -> None:
    """Refuse a run whose records cannot pay for all of it, before it trains.

    Args:
        accounts: of its silos.
        home: the folder of each silo for this run; its ledger is read if it is resumed.
        run: its identity; empty for a new one.

    Raises:
        ValueError: in words and figures, naming the silo; or if the book and one of the run's own
            ledgers lack what the other has.
    """
    for silo, account in accounts.items():
        path = home(silo) / LEDGER
        if run:
            account.follow(run, [entry for entry in read_ledger(path) if entry.run == run])
        account.check_plan(run)


def refuse_other_record(federation: Description, folder: RunFolder) -> None:
    """Refuse to resume a run that kept a book without it, or one that kept none with it.

    With a book, a run of which the description is lost needs no word of it: the book must have
    every charge of the run.

    Args:
        federation: that is to go on.
        folder: of the run, which has begun.

    Raises:
        ValueError: in words; also if a run is to go on without a book, and nothing says that it
            began without one.
    """
    if federation.terms.unit != "example":
        return
    began, goes_on = _began_recorded(folder), federation.lifetime.record
    if began is None and not goes_on:
        raise ValueError(
            f"lifetime: {folder.description} does not say whether this run was begun with a book "
            "for life, so that it goes on with one alone; leave off out, or begin a new run"
        )
    if began not in (None, goes_on):
        how = {True: "with", False: "without"}
        raise ValueError(
            f"lifetime: the run in {folder.path} was begun {how[not goes_on]} a book for life, and "
            f"is to go on {how[goes_on]}; a resume changes nothing about that: leave it as it was, "
            "or begin a new run"
        )


def _began_recorded(folder: RunFolder) -> bool | None:
    """Whether a run was begun with a book; None if nothing says."""
    if not folder.description.is_file():
        return None
    match read_json(folder.description):
        case {"beside": {"lifetime": {"record": bool(began)}}}:
            return began
    return None


def notices(accounts: Accounts) -> Iterator[str]:
    """What somebody should know who may see the book."""
    exposed = [silo for silo, account in accounts.items() if account.is_exposed()]
    if exposed:
        yield (
            f"lifetime: the records of {listed(exposed)} were in runs whose noise came from a "
            "seed, so that nothing bounds what they have paid in their life"
        )


def _planned(agreement: Agreement, silo: str, privacy: ExampleDP) -> Iterator[Priced]:
    """All that a whole run charges, its reserve included."""
    training, beside = agreement.terms.training_of(len(agreement.sizes)), agreement.releases(silo)
    steps = worst_case_steps(privacy, training, agreement.sizes[silo])
    if charge := agreement.mechanisms[silo].charge(steps):
        yield UPDATE, charge
    if beside.count:
        yield COUNT, beside.count.charge()
    if beside.metric:
        yield from [(METRIC, beside.metric.charge())] * training.scores
