"""Unheard: orders that sites may have charged for, and have told nothing of since.

An order is on the disk before it goes out. It is crossed off when its site has told of its ledger
since, and what it told is copied: so wherever a run is killed, no charge is forgotten. A site works
on one order after another, so that what it tells counts for all orders before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from silotune.core.files import DamagedError, read_json, write_json
from silotune.privacy.ledger.entry import METRIC

LOST = "lost"
"""In place of the state of an order that may have been sent: the file that knew is lost."""


class Order(NamedTuple):
    """What a site was asked for.

    Attributes:
        release: for which it charges: ``update`` or ``metric``.
        round: 0-based.
        state: SHA-256 of the state that came with it. For the same one it charges once.
    """

    release: str
    round: int
    state: str

    @property
    def trained(self) -> int:
        """The round that it is of: a score is of the state that the round before it left."""
        return self.round - (self.release == METRIC)


@dataclass(frozen=True, kw_only=True)
class Hearing:
    """What is known of a site's charges.

    Attributes:
        last_heard: the last round of which it has told what it charged; None if of none.
        orders: that it was sent since.
        unpaid: for which it gave an update, and told no charge: whatever it tells later but that.
    """

    last_heard: int | None = None
    orders: tuple[Order, ...] = ()
    unpaid: tuple[Order, ...] = ()

    @property
    def open(self) -> tuple[Order, ...]:
        """Orders that may have been charged for, whose charge it has not told."""
        return (*self.orders, *(order for order in self.unpaid if order not in self.orders))

    def asked(self, order: Order) -> Hearing:
        """With one more order; the same one counts once, and so does one that was lost."""
        lost = order._replace(state=LOST)
        others = (known for known in self.orders if known not in (order, lost))
        return replace(self, orders=(*others, order))

    def heard(self) -> Hearing:
        """After the site has told of its ledger."""
        told = (order.trained for order in self.orders if order.trained >= 0)
        return replace(self, last_heard=max(told, default=self.last_heard), orders=())

    def gave(self, order: Order) -> Hearing:
        """After the site has given an update and told no charge for it."""
        return replace(self, unpaid=(*self.unpaid, order)) if order not in self.unpaid else self


class Unheard:
    """The hearings of all sites of a run.

    Args:
        file: where they are kept; what it holds is gone on from.

    Raises:
        DamagedError: if the file is damaged.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._now = dict(read_hearings(file)) if file.exists() else {}
        self._kept = dict(self._now)

    def asked(self, orders: Mapping[str, Order]) -> None:
        """Write orders down that are about to go out.

        Raises:
            RecordError: if they cannot be written; then none may go out.
        """
        for site, order in orders.items():
            self._now[site] = self[site].asked(order)
            self._kept[site] = self._kept.get(site, Hearing()).asked(order)
        if orders:
            self._write()

    def heard(self, site: str) -> None:
        """A site has told of its ledger."""
        self._now[site] = self[site].heard()

    def unpaid(self, site: str, order: Order) -> None:
        """A site has given an update for an order, and told no charge for it."""
        self._now[site] = self[site].gave(order)

    def settle(self) -> None:
        """Cross off what was heard: its charges are copied.

        Raises:
            RecordError: if it cannot be written.
        """
        if self._kept != self._now:
            self._kept = dict(self._now)
            self._write()

    def silent(self) -> list[str]:
        """Sites with orders of whose charges they have told nothing."""
        return sorted(site for site, hearing in self._now.items() if hearing.open)

    def __getitem__(self, site: str) -> Hearing:
        return self._now.get(site, Hearing())

    def _write(self) -> None:
        told = {
            site: {
                "last_heard": known.last_heard,
                "orders": [list(order) for order in known.orders],
                "unpaid": [list(order) for order in known.unpaid],
            }
            for site, known in sorted(self._kept.items())
        }
        write_json(self._file, {"sites": told})


def read_hearings(file: Path) -> Mapping[str, Hearing]:
    """What is known of each site's charges.

    Raises:
        DamagedError: if the file is missing or damaged.
    """
    told = read_json(file).get("sites")
    try:
        return {site: _hearing(known) for site, known in dict(told or {}).items()}
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(
            f"{file}: damaged, so it is not known which sites were asked for what; bring it back "
            "from a copy"
        ) from error


def _hearing(known: Mapping[str, object]) -> Hearing:
    last = known["last_heard"]
    if not (last is None or type(last) is int):
        raise TypeError("no round")
    orders, unpaid = (tuple(_orders(known[name])) for name in ("orders", "unpaid"))
    return Hearing(last_heard=last, orders=orders, unpaid=unpaid)


def _orders(found: object) -> Iterator[Order]:
    if not isinstance(found, list):
        raise TypeError("no orders")
    for one in found:
        match one:
            case [str(release), int(round), str(state)]:
                yield Order(release, round, state)
            case _:
                raise TypeError("no order")
