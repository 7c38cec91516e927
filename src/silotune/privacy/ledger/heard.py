"""Heard ledger: a ledger that lies at its owner's, as far as its owner told it.

Lines come with the owner's answers and must go on, each from the one before it. What was told once
cannot be taken back: an owner that tells other lines, or fewer, is not believed.
"""

from __future__ import annotations

from collections.abc import Mapping

from silotune.privacy.accounting.charges import AnyCharge, close

from .chain import Chain
from .entry import LedgerLine, SiloStoreError


class HeardLedger:
    """The charges of one account in one run, told from afar.

    Args:
        account: whose they are.
        run: of which they are.
        known: lines that were told before, as they stand in the run's copy.
        prices: what was agreed that each release costs. Any other price is not believed: the
            epsilon of what was made up may be wrong, or take for ever.

    Attributes:
        account: the same.
        chain: what was told.
        prices: the same.

    Raises:
        SiloStoreError: if the lines that are known do not go on from each other.
    """

    def __init__(
        self, account: str, run: str, prices: Mapping[str, AnyCharge], known: bytes = b""
    ) -> None:
        self.account, self.chain = account, Chain()
        self._run, self.prices = run, prices
        self._new = b""
        self.hear(known)

    @property
    def place(self) -> str:
        """Where it lies, for people."""
        return f"the ledger at {self.account}"

    def hear(self, lines: bytes) -> None:
        """Take what goes on from what is known, up to the first line that does not.

        Args:
            lines: of a ledger, each with its newline.

        Raises:
            SiloStoreError: if one cannot be read, is of another account or run, is no price that
                was agreed, or does not go on from the one before it.
        """
        for line in lines.splitlines(keepends=True):
            self._take(line)
            self._new += line

    def follow(self) -> bytes:
        """Lines that were told since this was asked before; at first those that were known."""
        new, self._new = self._new, b""
        return new

    def _take(self, line: bytes) -> None:
        where = f"{self.place}, line {len(self.chain) + 1}"
        try:
            read = LedgerLine.parse(line, where)
        except ValueError as error:
            raise SiloStoreError(f"{where}: is no line of a ledger") from error
        if (read.entry.silo, read.entry.run) != (self.account, self._run):
            raise SiloStoreError(f"{where}: is a charge of another account, or of another run")
        price = self.prices.get(read.entry.release)
        if price is None or not close(price, read.entry.charge):
            raise SiloStoreError(f"{where}: is a charge that was not agreed")
        self.chain.take(read, where)
