"""Observed: a courier beside which it is written down what is asked, and what comes back.

So ``live.json`` tells of every run over sites, whatever carries its orders.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from silotune.certificate.issue import standing
from silotune.certificate.transports import kind_of
from silotune.core import ClientId
from silotune.privacy import NoDP
from silotune.runs.folder import RunFolder
from silotune.runs.live import Doing, Live, SiteLive, Stage, moment, write_live
from silotune.runtimes import Courier
from silotune.runtimes.courier import Noticing, Sign
from silotune.runtimes.messages import (
    ACCEPTED,
    ACCOUNT,
    BEGIN,
    FINISH,
    OFFER,
    REFUSED,
    RESULT,
    SCORE,
    TRAIN,
    WHOLE,
    opened,
    words,
)

from .acceptance import WAITING
from .description import Description
from .scoring import metric_name

STAGES = {
    OFFER: Stage.OFFER,
    BEGIN: Stage.BEGIN,
    TRAIN: Stage.TRAIN,
    SCORE: Stage.SCORE,
    ACCOUNT: Stage.ACCOUNT,
    FINISH: Stage.FINISH,
}
"""Kind of an order -> what it is about."""

SECRET = frozenset({TRAIN, SCORE})
"""Orders that tell by whom they are given, or when, who is in a cohort."""

_OPEN = frozenset({Doing.ASKED, Doing.WAITING, Doing.REFUSED, Doing.WORKING})
"""What a site does until it answers, however often it is asked the same."""


class Observed:
    """The courier of a run over sites.

    Where clients are hidden by the server, who is asked is its secret, and when a round begins
    tells whether anybody is: no training order is written down then, nor what answers it.

    Args:
        courier: carries the orders.
        folder: of the run.
        federation: as described.
        run: its identity.
        began: when it began.

    Attributes:
        transport: the courier's kind.
    """

    def __init__(
        self, courier: Courier, folder: RunFolder, federation: Description, run: str, began: str
    ) -> None:
        self._courier, self._folder, self.transport = courier, folder, kind_of(courier)
        self._hidden = federation.terms.unit == "client"
        self._live, self._lock = _first(federation, run, began), threading.Lock()
        if isinstance(courier, Noticing) and not self._hidden:
            courier.tell(self._noticed)

    def exchange(
        self, orders: Mapping[ClientId, bytes], deadline: float
    ) -> Iterator[tuple[ClientId, bytes]]:
        """As the courier does."""
        watched = _Watched(orders, self._asked)
        for client, answer in self._courier.exchange(watched, deadline):
            self._answered(client, answer)
            yield client, answer

    def _asked(self, client: ClientId, order: bytes) -> None:
        kind = order[:1]
        if kind not in STAGES or (self._hidden and kind in SECRET):
            return
        stage = STAGES[kind]
        with self._lock:
            site = self._live.sites.get(client, SiteLive())
            if site.doing not in _OPEN or (site.order != stage and site.doing != Doing.ASKED):
                site = replace(site, doing=Doing.ASKED, since=moment(), reason="")
            self._note(client, replace(site, order=stage), stage)

    def _answered(self, client: ClientId, answer: bytes) -> None:
        with self._lock:
            site = self._live.sites.get(client)
            if site is None or site.doing not in _OPEN:
                return
            now = moment()
            if answer[:1] == WHOLE:
                self._note(client, replace(site, heard=now))
            elif answer[:1] in (ACCEPTED, RESULT):
                secret = self._hidden and site.order == Stage.BEGIN
                doing = Doing.HIDDEN if secret else Doing.IDLE
                self._note(client, replace(site, doing=doing, since=now, heard=now, reason=""))
            elif answer[:1] == REFUSED:
                self._note(client, _refused(site, answer, now))

    def _noticed(self, client: ClientId, sign: Sign) -> None:
        with self._lock:
            site = self._live.sites.get(client)
            if site is None:
                return
            if sign == Sign.GONE:
                self._note(client, replace(site, connected=False))
            elif sign == Sign.HERE:
                self._note(client, replace(site, connected=True))
            elif site.doing in _OPEN:
                now = moment()
                since = site.since if site.doing == Doing.WORKING else now
                site = replace(site, doing=Doing.WORKING, since=since, heard=now, reason="")
                self._note(client, site)

    def _note(self, client: ClientId, site: SiteLive, stage: Stage | None = None) -> None:
        before, self._live = self._live, self._live.with_site(client, site)
        self._live = replace(self._live, stage=stage or self._live.stage)
        if self._live != before:
            with suppress(OSError):  # a full disk stops the run at its next record, in words
                write_live(self._folder.live, self._live)


def _first(federation: Description, run: str, began: str) -> Live:
    """Before anything was asked."""
    terms = federation.terms
    privacy = None if isinstance(terms.privacy, NoDP) else terms.privacy
    return Live(
        run=run,
        title=federation.title,
        coordinator=federation.coordinator,
        began=began,
        rounds=terms.rounds,
        metric=metric_name(terms),
        unit=terms.unit,
        privacy=standing(terms),
        budget=privacy.target_epsilon if privacy else None,
        delta=privacy.target_delta if privacy else None,
        sites={name: SiteLive() for name in federation.records.elsewhere},
    )


def _refused(site: SiteLive, answer: bytes, now: str) -> SiteLive:
    message = opened(answer)
    code = message.head.get("code") if message else None
    doing = Doing.WAITING if code == WAITING else Doing.REFUSED
    since = site.since if site.doing == doing else now
    return replace(site, doing=doing, since=since, heard=now, reason=words(code))


@dataclass(frozen=True)
class _Watched(Mapping[ClientId, bytes]):
    """Orders; it is told when one is taken out to be carried."""

    orders: Mapping[ClientId, bytes]
    taken: Callable[[ClientId, bytes], None]

    def __getitem__(self, client: ClientId) -> bytes:
        order = self.orders[client]
        self.taken(client, order)
        return order

    def __iter__(self) -> Iterator[ClientId]:
        return iter(self.orders)

    def __len__(self) -> int:
        return len(self.orders)
