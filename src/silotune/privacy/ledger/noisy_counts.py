"""Optional releases of a silo: whole numbers that it need not send, each a mechanism of its own.

    COUNT     how many records it trains on, once in a run, as its weight
    METRIC    how many held-out records the model gets right, after each round that is scored

One record more or less moves either by 1 at most. Gaussian noise is added, and the result rounded
to a whole number: that is post-processing, and leaves no low-order digits that could betray what
was added to (Mironov 2012).

A silo's records are in one of two tables. So its ledger has two columns, which its training and
its held-out records have paid; one record is in one of them, and the silo's epsilon is the larger.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from silotune.privacy.accounting.accountant import FINE, epsilon
from silotune.privacy.accounting.charges import AnyCharge, Charge, Relation
from silotune.privacy.mechanisms.gaussian import standard_normal
from silotune.privacy.mechanisms.secure_rng import Randomness

from .entry import METRIC


@dataclass(frozen=True, kw_only=True)
class NoisyCount:
    """A count that one record moves by 1 at most, plus N(0, multiplier^2). Fields are public.

    Attributes:
        multiplier: sigma, in records.
        insecure_seed: makes the noise reproducible, for experiments: NOT private then.

    Raises:
        ValueError: if sigma is not a positive number.
    """

    multiplier: float
    insecure_seed: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.multiplier < math.inf:
            raise ValueError(f"a noisy count needs a positive sigma, not {self.multiplier}")

    def noisy(self, count: int, *address: str | int) -> int:
        """The number to release; it may be negative.

        Args:
            count: the true one.
            address: of this release in its run; used only with ``insecure_seed``.
        """
        g = Randomness.secret()
        if self.insecure_seed is not None:
            g = Randomness.insecure(self.insecure_seed).fork(*address)
        return round(count + self.multiplier * float(standard_normal(g, 1)))

    def charge(self) -> Charge:
        """One Gaussian mechanism of sensitivity 1, without sampling."""
        return Charge(1.0, self.multiplier, 1)


@dataclass(frozen=True, kw_only=True)
class Releases:
    """What a silo sends besides its update. Public.

    Attributes:
        count: of its training records; None: not at all.
        metric: of the held-out records that the model gets right; None: not at all.
        held_out: the declared number of held-out records.
    """

    count: NoisyCount | None = None
    metric: NoisyCount | None = None
    held_out: int = 0


class ChargesByTable(NamedTuple):
    """What each of two disjoint sets of a silo's records has paid."""

    training: list[AnyCharge]
    held_out: list[AnyCharge]

    def epsilon(
        self,
        delta: float,
        *,
        relation: Relation = "add-remove",
        grid: float = FINE,
        library: bool = False,
    ) -> float:
        """Of any one record, in whichever table it is: the larger of both."""
        return max(
            epsilon(column, delta, relation=relation, grid=grid, library=library) for column in self
        )


def by_table(charges: Iterable[tuple[str, AnyCharge]]) -> ChargesByTable:
    """Charges of one silo by the records that pay them.

    Args:
        charges: each with the release that it is for.
    """
    both = ChargesByTable([], [])
    for release, charge in charges:
        (both.held_out if release == METRIC else both.training).append(charge)
    return both


def column_of(release: str, charges: Iterable[tuple[str, AnyCharge]]) -> list[AnyCharge]:
    """What the records that pay for ``release`` have paid."""
    both = by_table(charges)
    return both.held_out if release == METRIC else both.training
