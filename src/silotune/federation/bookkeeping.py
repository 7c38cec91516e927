"""Bookkeeping: the ledgers of all accounts, followed, and the run's copy of them.

An account's own ledger lies with its owner. Where that is this machine it is read, elsewhere it is
heard of with each answer (``privacy.ledger.heard``); here both are followed alike.

``ledger.jsonl`` of the run holds every line of every account as it stands in that account's own
ledger. It is only appended to: what is in it was charged, whatever becomes of a silo's folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from silotune.certificate.accounts import cost
from silotune.certificate.evidence import Books, place_of, refuse_shorter
from silotune.certificate.issue import units
from silotune.core import GlobalState
from silotune.core.files import RecordError, append_bytes
from silotune.privacy import NoDP, SiloStoreError
from silotune.privacy.accounting.accountant import COARSE
from silotune.privacy.ledger.book import Account
from silotune.privacy.ledger.chain import Chain, read_chains
from silotune.privacy.ledger.heard import HeardLedger
from silotune.privacy.ledger.ledger import Ledger
from silotune.privacy.ledger.store import LEDGER
from silotune.runs.facts import RunFacts
from silotune.runs.folder import RunFolder
from silotune.runs.privacy_statement import read_statement
from silotune.terms import Agreement


class _NewLine(NamedTuple):
    """A line that is not copied yet; they sort as they are copied.

    ``round`` is the newest that its account's lines have been of, up to it: whatever round a line
    is of, it comes after the one before it.
    """

    round: int
    account: str
    number: int
    line: bytes


class Followed(Protocol):
    """An account's own ledger, read or heard of."""

    @property
    def chain(self) -> Chain:
        """What is known of it."""
        ...

    @property
    def place(self) -> str:
        """Where it lies, for people."""
        ...

    def follow(self) -> bytes:
        """The lines since this was asked before; all that are known at first."""
        ...


def ledgers_here(agreement: Agreement, folder: RunFolder) -> Mapping[str, Ledger]:
    """By account, the ledgers that lie in the folder of a run: all of a simulation's."""
    places = {n: place_of(folder, agreement.terms.unit, n) for n in units(agreement)}
    return {name: Ledger(place / LEDGER) for name, place in places.items()}


class Bookkeeping:
    """The books of one run.

    Args:
        agreement: says whose charges there are.
        folder: of the run.
        run: its identity.
        ledgers: each account's own.

    Raises:
        SiloStoreError: if a ledger cannot be read or its chain is broken.
    """

    def __init__(
        self,
        agreement: Agreement,
        folder: RunFolder,
        run: str,
        ledgers: Mapping[str, Followed],
    ) -> None:
        self._agreement, self._folder, self._run = agreement, folder, run
        self._ledgers = ledgers
        self._copied = {name: len(chain) for name, chain in read_chains(folder.ledger).items()}
        self._new: list[_NewLine] = []
        self._newest: dict[str, int] = {}
        self._spent: dict[str, tuple[int, float]] = {}
        folder.ledger.touch()
        self.follow()

    @property
    def chains(self) -> Mapping[str, Chain]:
        """Every account's ledger, as far as it was followed."""
        return {name: ledger.chain for name, ledger in self._ledgers.items()}

    def account(self, name: str) -> Account:
        """What an account was charged in this run."""
        return self._ledgers[name].chain.book(self._run).account

    def spent(self) -> dict[str, float]:
        """Epsilon of each account so far, on the coarse grid; empty without privacy.

        An account is counted again when it has charged since: its lines are only added to.
        """
        privacy = self._agreement.terms.privacy
        if isinstance(privacy, NoDP):
            return {}
        for name, ledger in self._ledgers.items():
            lines = len(ledger.chain)
            if name not in self._spent or self._spent[name][0] != lines:
                account = self.account(name)
                found = cost(account, privacy.target_delta, privacy.relation, COARSE)
                self._spent[name] = (lines, found)
        return {name: self._spent[name][1] for name in self._ledgers}

    def heads(self) -> dict[str, dict[str, Any]]:
        """Account -> how many lines its ledger has, and SHA-256 of the last."""
        return {n: {"lines": len(chain), "head": chain.head} for n, chain in self.chains.items()}

    def follow(self) -> None:
        """Read what was charged since.

        Raises:
            SiloStoreError: if a ledger is not what it was, or its chain is broken.
        """
        for name, ledger in self._ledgers.items():
            new = ledger.follow().splitlines(keepends=True)
            for i, line in enumerate(new, start=len(ledger.chain) - len(new)):
                newest = max(ledger.chain.entries[i].round, self._newest.get(name, 0))
                self._newest[name] = newest
                if i >= self._copied.get(name, 0):
                    self._new.append(_NewLine(newest, name, i, line))

    def collect(self) -> None:
        """Copy what was charged since, in the order of rounds and accounts.

        Raises:
            RecordError: if it cannot be written.
        """
        self.follow()
        if self._new:
            append_bytes(self._folder.ledger, b"".join(new.line for new in sorted(self._new)))
            self._new.clear()

    def check(self, state: GlobalState, facts: RunFacts) -> None:
        """That no ledger lacks what another file of the run has seen.

        Args:
            state: of the checkpoint.
            facts: of ``run.json``.

        Raises:
            SiloStoreError: in words.
        """
        privacy = self._agreement.terms.privacy
        if isinstance(privacy, NoDP):
            return
        for name, chain in self.chains.items():
            if others := chain.runs() - {self._run}:
                raise SiloStoreError(
                    f"{self._ledgers[name].place}: holds charges of another run "
                    f"({', '.join(sorted(others))}); bring back this run's own"
                )
        books = Books(
            run=self._run,
            unit=self._agreement.terms.unit,
            delta=privacy.target_delta,
            relation=privacy.relation,
            chains=self.chains,
            places={name: self._told(ledger.place) for name, ledger in self._ledgers.items()},
            heard=any(isinstance(one, HeardLedger) for one in self._ledgers.values()),
        )
        kept = self._folder.privacy.exists()  # if not, it is made again from the ledgers
        statement = read_statement(self._folder) if kept else None
        refuse_shorter(books, self._folder, state, facts, statement)

    def _told(self, place: str) -> str:
        return place.removeprefix(f"{self._folder.path.as_posix()}/")


def refuse_spent(folder: RunFolder) -> None:
    """Begin no run where the charges of another one are.

    Raises:
        RecordError: in words.
    """
    others = (*sorted(folder.path.glob(f"sites/*/{LEDGER}")), folder.server / LEDGER, folder.ledger)
    for path in others:
        if path.is_file() and path.stat().st_size:
            raise RecordError(
                f"folder: {path} holds the charges of a run whose {folder.run.name} is gone, and "
                "which this one's certificate would leave out; bring it back, or choose another "
                "folder (--output-dir)"
            )
