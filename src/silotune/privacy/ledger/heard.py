"""Heard ledger: a ledger that lies at its owner's, as far as its owner told it.

Lines come with the owner's answers and must go on, each from the one before it. What was told once
cannot be taken back: an owner that tells other lines, or fewer, is not believed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from silotune.core.names import is_digest, is_time
from silotune.privacy.accounting.charges import AnyCharge, close

from .chain import Chain
from .entry import LedgerLine, SiloStoreError


class HeardLedger:
    """The charges of one account in one run, told from afar.

    Args:
        account: whose they are.
        run: of which they are.
        prices: what was agreed that each release costs. Any other price is not believed: the
            epsilon of what was made up may be wrong, or take for ever.
        max_grad_norm: that was agreed.
        known: lines that were told before, as they stand in the run's copy.

    Attributes:
        account: the same.
        chain: what was told.
        prices: the same.

    Raises:
        SiloStoreError: if the lines that are known do not go on from each other.
    """

    def __init__(
        self,
        account: str,
        run: str,
        prices: Mapping[str, AnyCharge],
        max_grad_norm: float,
        known: bytes = b"",
    ) -> None:
        self.account, self.chain = account, Chain()
        self._run, self.prices, self._norm = run, prices, max_grad_norm
        self._newest, self._new = math.inf, b""
        self.hear(known)
        self._newest = -1

    @property
    def place(self) -> str:
        """Where it lies, for people."""
        return f"the ledger at {self.account}"

    def asked(self, round: int) -> None:
        """The owner is asked for what counts in the record of a round, or of an earlier one."""
        self._newest = max(self._newest, round)

    def hear(self, lines: bytes) -> None:
        """Take what goes on from what is known, up to the first line that does not.

        Args:
            lines: of a ledger, each with its newline.

        Raises:
            SiloStoreError: if one cannot be read, is of another account or run, is no price that
                was agreed, is of what was not asked for yet, or does not go on from the one before
                it.
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
        if read.entry.max_grad_norm != self._norm or read.entry.due > self._newest:
            raise SiloStoreError(f"{where}: is a charge of what was not asked for")
        if not is_time(read.entry.time) or not (
            read.entry.sent is None or is_digest(read.entry.sent)
        ):
            raise SiloStoreError(f"{where}: has words of its owner's")
        self.chain.take(read, where)
