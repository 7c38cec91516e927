"""Evidence: what the other files of a run show that a ledger must hold.

A silo charges before anything leaves it; the collected ledger, metrics, certificate and checkpoint
are written after that, in this order. So a silo's own ledger may be ahead of all of them, wherever
a run was killed, and never behind any. One that is has lost charges: it was edited, deleted, or
put back from an older copy. A folder that was put back as a whole is not found out by anything
that lies in it.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from silotune.core import GlobalState
from silotune.engine.checkpoint import encode
from silotune.privacy import Relation, SiloStoreError
from silotune.privacy.accounting.accountant import COARSE
from silotune.privacy.ledger.book import Book
from silotune.privacy.ledger.chain import Chain, read_chains
from silotune.privacy.ledger.entry import UPDATE
from silotune.privacy.ledger.store import LEDGER, check_kept
from silotune.runs.facts import RunFacts
from silotune.runs.folder import RoundRecord, RunFolder, rounds_in
from silotune.runs.privacy_statement import PrivacyStatement

from .accounts import cost
from .consistency import OTHER_LIBRARY, Discrepancy

CURE = (
    "what was paid is not known. Bring the folder of this account back from a copy that is no "
    "older than the rest, or begin a new run"
)


@dataclass(frozen=True, kw_only=True)
class Books:
    """The ledgers of a run, and how they are priced.

    Attributes:
        run: its identity.
        unit: what is hidden: ``example`` or ``client``.
        delta: of the guarantee.
        relation: between neighbouring data sets.
        chains: account -> its ledger.
        places: account -> the file, for the message.
        heard: whether accounts are told from afar, so that what one charged in a round whose answer
            was lost is known only later.
    """

    run: str
    unit: str
    delta: float
    relation: Relation
    chains: Mapping[str, Chain]
    places: Mapping[str, str]
    heard: bool = False


def place_of(folder: RunFolder, unit: str, account: str) -> Path:
    """The folder in which the owner of an account keeps its ledger."""
    return folder.server if unit == "client" else folder.site(account)


def refuse_shorter(
    books: Books,
    folder: RunFolder,
    state: GlobalState,
    facts: RunFacts,
    said: PrivacyStatement | None,
) -> None:
    """Go on with a run only if no ledger lacks what another file has seen.

    Args:
        books: its accounts' own ledgers.
        folder: of the run.
        state: of the checkpoint.
        facts: of ``run.json``.
        said: the certificate so far, if there is one.

    Raises:
        SiloStoreError: naming the ledger, the file that shows more, and the cure.
    """
    with folder.advising():
        rounds = rounds_in(folder.metrics)  # which of them were lost is told below
    found = [
        *by_collected(books, folder),
        *by_certificate(books, said),
        *by_facts(books, facts),
        *by_rounds(books, rounds),
        *by_epsilon(books, rounds[-1:]),
        *by_checkpoint(books, rounds, state),
    ]
    if found:
        told = "; ".join(f"{one.where}: {one.text}" for one in found[:3])
        raise SiloStoreError(f"resume: {told}; {CURE}")


def by_collected(books: Books, folder: RunFolder) -> Iterator[Discrepancy]:
    """By the lines that the run has copied of every ledger."""
    file = folder.ledger.name
    try:
        copies = read_chains(folder.ledger)
    except SiloStoreError as error:
        yield Discrepancy(file, str(error))
        return
    for name in sorted(copies.keys() - books.chains.keys()):
        yield Discrepancy(file, f"has charges of {name}, which is no account of this run")
    for name, copy in copies.items():
        if name in books.chains:
            yield from _held(books, name, len(copy), copy.head, file)


def by_certificate(books: Books, said: PrivacyStatement | None) -> Iterator[Discrepancy]:
    """By the heads that the certificate was made from."""
    for name, silo in (said.silos if said else {}).items():
        if name in books.chains:
            yield from _held(books, name, silo.lines, silo.head, "privacy.json")


def by_facts(books: Books, facts: RunFacts) -> Iterator[Discrepancy]:
    """By the heads that ``run.json`` took down when the run ended."""
    for name, seen in facts.ledgers.items():
        if name in books.chains:
            match seen:
                case {"lines": int(lines), "head": str(head)}:
                    yield from _held(books, name, lines, head, "run.json")
                case _:
                    yield Discrepancy("run.json", f"has no head of the ledger of {name}")


def by_rounds(books: Books, rounds: list[RoundRecord]) -> Iterator[Discrepancy]:
    """By who took part in which round, and that no round is missing."""
    numbers = [record.round for record in rounds if record.round >= 0]
    if numbers != list(range(len(numbers))):
        yield Discrepancy("metrics.jsonl", f"has the rounds {_listed(numbers)}: some were lost")
    for record in rounds:
        hidden = books.unit == "client" and record.round >= 0
        for name in books.chains if hidden else record.clients:
            chain = books.chains.get(name)
            if chain is None:
                yield Discrepancy("metrics.jsonl", f"{name} took part, which has no account")
            elif not chain.book(books.run).of(UPDATE, record.round):
                yield Discrepancy(
                    books.places[name],
                    f"has no charge for round {record.round}, in which metrics.jsonl shows that "
                    f"{name} took part",
                )


def by_epsilon(books: Books, rounds: list[RoundRecord]) -> Iterator[Discrepancy]:
    """By what each account had spent after rounds, as they were recorded."""
    for name, chain in books.chains.items():
        left, book = deque(sorted(chain.book(books.run).entries, key=attrgetter("due"))), Book()
        for record in (record for record in rounds if record.round >= 0):
            while left and left[0].due <= record.round:
                book.add(left.popleft())
            if books.heard and name not in record.epsilon and not book.entries:
                continue  # a site that joined later
            true = cost(book.account, books.delta, books.relation, COARSE)
            told = record.epsilon.get(name, math.nan)
            later = books.heard and told <= true  # it told the rest afterwards
            if told != true and not later and not abs(told - true) <= OTHER_LIBRARY * true:
                yield Discrepancy(
                    f"metrics.jsonl: round {record.round}",
                    f"says that {name} had spent {told:.6g}, {books.places[name]} has charges "
                    f"for {true:.6g}",
                )


def by_checkpoint(
    books: Books, rounds: list[RoundRecord], state: GlobalState
) -> Iterator[Discrepancy]:
    """By the rounds that the checkpoint has behind it, and by its state where that was charged."""
    recorded = sum(record.round >= 0 for record in rounds)
    if recorded < state.round:
        yield Discrepancy(
            "metrics.jsonl",
            f"has {recorded} rounds, the checkpoint is of after {state.round}: some were lost",
        )
    if recorded > state.round + 1:
        yield Discrepancy(
            "checkpoint/state.bin",
            f"is of after {state.round} rounds, metrics.jsonl has {recorded}: it is an older copy",
        )
    last = state.round - 1
    for name in state.latest.holders:
        if name in books.chains and not books.chains[name].book(books.run).of(UPDATE, last):
            yield Discrepancy(
                books.places[name],
                f"has no charge for round {last}, in which the checkpoint shows that {name} took "
                "part",
            )
    if books.unit == "client" and last >= 0:
        yield from _by_state(books, last, state)


def by_parcels(books: Books, folder: RunFolder) -> Iterator[Discrepancy]:
    """By what the owners of the accounts still have of what they sent."""
    for name, chain in books.chains.items():
        place = place_of(folder, books.unit, name)
        if not (place / LEDGER).is_file():
            continue
        try:
            check_kept(place, chain)
        except SiloStoreError as error:
            yield Discrepancy(books.places[name], str(error))


def _by_state(books: Books, last: int, state: GlobalState) -> Iterator[Discrepancy]:
    """A server that hides its clients has charged for this very state."""
    digest = hashlib.sha256(encode(state, books.run, "")).hexdigest()
    for name, chain in books.chains.items():
        charged = chain.book(books.run).of(UPDATE, last)
        if charged and digest not in {entry.sent for entry in charged}:
            yield Discrepancy(
                "checkpoint/state.bin",
                f"is not the state that {books.places[name]} has a charge for in round {last}",
            )


def _held(books: Books, name: str, lines: int, head: str, source: str) -> Iterator[Discrepancy]:
    chain = books.chains[name]
    if len(chain) < lines:
        yield Discrepancy(
            books.places[name], f"holds {len(chain)} charges, {source} shows {lines} of {name}"
        )
    elif not chain.holds(lines, head):
        yield Discrepancy(
            books.places[name],
            f"line {lines} is not the one that {source} knows: the ledger was written anew",
        )


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"
