"""A silo's optional releases: charged in its ledger, and then the same number whenever asked.

The number is in the line of the ledger that charges for it, which is on the disk before the
number leaves: there is no way to send one that was not charged, or to draw a second one. Before a
line is in the ledger of the run it is in the silo's book for life, if it keeps one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from silotune.core import ClientTask, Meter, Meters
from silotune.privacy import AnyCharge, LedgerEntry, SiloStore
from silotune.privacy.ledger.book import Book
from silotune.privacy.ledger.entry import COUNT, METRIC, UPDATE
from silotune.privacy.ledger.noisy_counts import NoisyCount, Releases

from .participants import Client

RECORDS, ACCURACY = "records", "accuracy"
"""Meters of a private result: a noisy number of records; noisy right answers of the declared."""


def affords(
    client: Client, store: SiloStore, run: str, charge: AnyCharge, release: str = UPDATE
) -> bool:
    """Whether the silo's budget, if it has one, can pay.

    Raises:
        CeilingReached: if the records have paid so much in other runs that they cannot.
        BookError: if the silo's book and its ledger lack what the other has.
    """
    if client.lifetime is not None:
        client.lifetime.check(run, release, charge, store.entries(run))
    budget = client.budget
    return budget is None or store.affords(run, charge, budget, release)


def noisy_records(task: ClientTask, client: Client, store: SiloStore) -> Meters | None:
    """The silo's noisy number of training records, the same in every round.

    Empty if it releases none; None if the budget cannot pay for it.
    """
    noise = client.releases.count
    if noise is None:
        return {}
    number = _number(COUNT, task, store)
    if number is None:
        number = _release(COUNT, task, client, store, noise, len(client.train.lengths))
    return None if number is None else {RECORDS: Meter(number, 1)}


def noisy_score(task: ClientTask, client: Client, store: SiloStore, right: int) -> Meters | None:
    """Noisy right answers on the held-out records, over their declared number.

    Empty if the silo releases none; None if the budget cannot pay for it.

    Args:
        task: of a round; asked for it again, the silo gives the same number again.
        client: whose records they are.
        store: its ledger.
        right: how many the model got right.
    """
    noise = client.releases.metric
    if noise is None:
        return {}
    number = _number(METRIC, task, store)
    if number is None:
        number = _release(METRIC, task, client, store, noise, right)
    return None if number is None else {ACCURACY: Meter(number, client.releases.held_out)}


def prices_of(update: AnyCharge | None, releases: Releases) -> Mapping[str, AnyCharge]:
    """What each release of a silo costs.

    Args:
        update: the price of a round; None if it costs nothing.
        releases: what it sends besides.
    """
    noise = {COUNT: releases.count, METRIC: releases.metric}
    prices: dict[str, AnyCharge] = {n: noisy.charge() for n, noisy in noise.items() if noisy}
    return {**prices, UPDATE: update} if update else prices


def meters_due(book: Book, task: ClientTask, held_out: int, *, scored: bool) -> Meters:
    """Meters of an honest result, as the silo's ledger has them.

    Args:
        book: the silo's charges of the run, those for this result among them.
        task: that was given.
        held_out: the silo's declared number of held-out records.
        scored: whether it was to score, not to train.
    """
    before = book.of(METRIC, task.round) if scored else book.of(COUNT)
    number = before[0].value if before else None
    if number is None:
        return {}
    return {ACCURACY: Meter(number, held_out)} if scored else {RECORDS: Meter(number, 1)}


def charged(
    task: ClientTask, client: Client, store: SiloStore, charge: AnyCharge, release: str = UPDATE
) -> LedgerEntry:
    """The price of a release at its next attempt."""
    return LedgerEntry(
        run=task.run,
        silo=task.client,
        round=task.round,
        attempt=store.attempts(task.run, task.round, release),
        release=release,
        charge=charge,
        max_grad_norm=client.privacy.max_grad_norm,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def pay_for_life(client: Client, entry: LedgerEntry) -> None:
    """Write a charge into the silo's book, if it keeps one, before the run's ledger has it.

    Raises:
        CeilingReached: if the records cannot pay; then nothing may be sent.
    """
    if client.lifetime is not None:
        client.lifetime.pay(entry)


def _number(release: str, task: ClientTask, store: SiloStore) -> int | None:
    """What has left before: of the run, or of the round if every round has its own."""
    before = store.book(task.run).of(release, None if release == COUNT else task.round)
    return before[0].value if before else None


def _release(
    release: str, task: ClientTask, client: Client, store: SiloStore, noise: NoisyCount, true: int
) -> int | None:
    """A fresh number, once it is charged; None if the budget cannot pay."""
    if not affords(client, store, task.run, noise.charge(), release):
        return None
    entry = charged(task, client, store, noise.charge(), release)
    entry = replace(entry, value=noise.noisy(true, release, task.round))
    pay_for_life(client, entry)
    store.release_number(entry)
    return entry.value
