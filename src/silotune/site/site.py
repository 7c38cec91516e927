"""Site: one client's answers to a coordinator that it does not trust.

A site is a federation of one client. Orders come in as bytes and answers go out as bytes; whatever
goes wrong between stays here, and a code of a fixed list goes out. The policy is read anew for
every order, so that what its owner no longer allows is no longer done.

What a site knows of a run lies in its home, so it may be ended at any time: the offer, what people
said to it, who takes part (``begun.json``), the ledger. The model of the newest run stays open.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from silotune.core import ClientId, CorruptPayload, decode_task
from silotune.core.files import json_text, read_json
from silotune.engine import Client, order_book
from silotune.engine.client_state import start_of
from silotune.engine.remembered import forget
from silotune.federation.built import (
    BuiltFederation,
    Declared,
    build_clients,
    build_federation,
)
from silotune.federation.description import Description
from silotune.federation.inputs import read_tables
from silotune.federation.lifetimes import open_accounts, refuse_beyond
from silotune.federation.offer import Offer, OfferError
from silotune.federation.remembering import remembering
from silotune.federation.trained_models import ModelState
from silotune.federation.versions import versions
from silotune.privacy import SiloStoreError
from silotune.privacy.accounting.charges import to_json
from silotune.privacy.ledger.private_files import write_private
from silotune.runtimes.messages import (
    ACCEPTED,
    ACCOUNT,
    BEGIN,
    FINISH,
    OFFER,
    SCORE,
    TRAIN,
    Message,
    message,
    opened,
    refusal,
    with_lines,
)
from silotune.runtimes.responder import Responder
from silotune.terms import Terms
from silotune.terms.agreement import agree

from .home import FINISHED, Home
from .keeping import accepted, keep_certificate, note, take
from .own import OwnSite
from .permission import (
    RefusedError,
    accepted_offer,
    check_allowed,
    checked_held,
    checked_sizes,
    folder_of_base,
)
from .price import limit_of

_LOG = logging.getLogger(__name__)


BEGUN = "begun.json"
"""In the folder of a run: who takes part, and with how many records."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenOffer:
    """An offer with its model and records opened.

    Attributes:
        offer: as it was accepted.
        built: a federation of which this machine has one client.
    """

    offer: Offer
    built: BuiltFederation


@dataclass(frozen=True, kw_only=True, eq=False)
class Begun:
    """A run at work.

    Attributes:
        offer: as it was accepted.
        built: with the numbers that all sites declared.
        client: what this site is in it.
        responder: answers tasks.
        policy: SHA-256 of the policy whose limits ``client`` has.
        num_examples: what was declared.
    """

    offer: Offer
    built: BuiltFederation
    client: Client
    responder: Responder
    policy: str
    num_examples: int

    def serves(self, own: OwnSite, offer: Offer) -> bool:
        """Whether it is of this offer, under the limits that hold now."""
        limits = self.policy, self.num_examples
        return self.offer.digest == offer.digest and limits == (
            own.policy.digest,
            own.num_examples,
        )


class Site:
    """Answers orders, one at a time.

    Args:
        read: gives what the site is and allows, anew for every order; raises if that cannot be
            told, and then every order is refused.
    """

    def __init__(self, read: Callable[[], OwnSite]) -> None:
        self._read = read
        self._open: OpenOffer | None = None
        self._begun: Begun | None = None

    def answer(self, order: bytes) -> bytes:
        """What goes back. It never raises, and never says why something failed."""
        try:
            own = self._read()
        except Exception as error:  # of its own file, which holds no record
            _LOG.error("every order is refused: %s", error)
            return refusal("policy:file")
        try:
            return self._answered(own, order)
        except RefusedError as refused:
            return refusal(refused.code)
        except Exception:
            note(own.home)
            return refusal("failed")

    def _answered(self, own: OwnSite, order: bytes) -> bytes:
        asked = opened(order)
        if asked is None:
            raise RefusedError("order:message")
        if asked.kind == OFFER:
            return self._offered(own, asked)
        offer = accepted_offer(own, asked.head.get("run"))
        match asked.kind:
            case kind if kind == BEGIN:
                return self._begins(own, offer, asked.head)
            case kind if kind in (TRAIN, SCORE):
                return self._works(own, offer, order)
            case kind if kind == ACCOUNT:
                return message(ACCEPTED, *with_lines(_lines(self._run(own, offer), asked.head)))
            case kind if kind == FINISH:
                return self._finishes(own, offer, asked)
        raise RefusedError("order:kind")

    def _offered(self, own: OwnSite, asked: Message) -> bytes:
        """Whether this site takes part, and what it declares."""
        home = Home(own.home)
        try:
            offer = Offer.parse(asked.body)
        except OfferError as error:
            raise RefusedError("versions" if "protocol" in str(error) else "order:offer") from error
        begun = home.run(offer.run) / BEGUN
        if begun.exists() and read_json(begun).get("offer") != offer.digest:
            raise RefusedError("order:offer")  # what was accepted stays as it was
        home.keep(asked.body)
        check_allowed(own, offer)
        self._opened(own, offer)
        says = {
            "offer": offer.digest,
            "num_examples": own.num_examples,
            "num_held_out": own.num_held_out or 0,
            "policy": own.policy.digest,
            "versions": versions(),
        }
        return message(ACCEPTED, {**says, "accepted": accepted(home, offer, says)})

    def _begins(self, own: OwnSite, offer: Offer, head: Mapping[str, Any]) -> bytes:
        """Who takes part is told; what this site charges for a round is told back."""
        if head.get("offer") != offer.digest:
            raise RefusedError("order:offer")
        sizes, held_out = (
            checked_sizes(head.get("sizes"), offer, own.name),
            checked_held(head.get("held"), offer, own.name),
        )
        if sizes[own.name] != own.num_examples:
            raise RefusedError("order:sizes")
        if held_out and held_out[own.name] != own.num_held_out:
            raise RefusedError("order:held")
        told = {"offer": offer.digest, "sizes": sizes, "held": held_out}
        file = Home(own.home).opened_run(offer.run) / BEGUN
        if file.exists() and not _goes_on(read_json(file), told):
            raise RefusedError("order:sizes")
        begun = self._agreed(own, offer, sizes, held_out)
        try:
            write_private(file, json_text(told).encode())
        except BaseException:
            self._begun = None  # what is not written down has not begun
            raise
        price = begun.built.agreement.price(own.name) if _charges(offer.terms) else None
        head_back, lines = with_lines(_lines(begun, head))
        return message(ACCEPTED, {**head_back, "charge": price and to_json(price)}, lines)

    def _works(self, own: OwnSite, offer: Offer, order: bytes) -> bytes:
        try:
            return self._run(own, offer).responder.answer(order)
        except CorruptPayload as error:
            raise RefusedError("order:message") from error
        except SiloStoreError as error:
            note(own.home)
            raise RefusedError("ledger") from error

    def _finishes(self, own: OwnSite, offer: Offer, asked: Message) -> bytes:
        """Keep the certificate, hold it against the own ledger, and take the result."""
        begun, home = self._run(own, offer), Home(own.home)
        task = decode_task(asked.body)
        assert begun.client.agreement is not None
        begun.client.agreement.check_result(task)
        lines = _lines(begun, asked.head)  # a ledger that has lost some says nothing of others
        file = home.run(offer.run) / FINISHED
        before = read_json(file).get("round", 0) if file.is_file() else -1
        if task.round < before:
            raise RefusedError("order:round")
        order_book.close(begun.client.folder, begun.client.agreement, task.round)
        if offer.terms.private:
            keep_certificate(home, own.name, offer.run, str(asked.head.get("certificate")))
        write_private(file, json_text({"round": task.round}).encode())
        if own.policy.accept_result and task.round > before:
            take(
                begun.built,
                begun.client,
                begun.offer,
                ModelState(
                    factors=start_of(task, begun.responder.trainer, begun.client),
                    folded=task.folded,
                ),
            )
        forget(begun.client.train, begun.client.held_out)
        return message(ACCEPTED, *with_lines(lines))

    def _run(self, own: OwnSite, offer: Offer) -> Begun:
        """A run that has begun here, opened again if this process has not seen it yet."""
        if self._begun is not None and self._begun.serves(own, offer):
            return self._begun
        file = Home(own.home).run(offer.run) / BEGUN
        if not file.is_file():
            raise RefusedError("order:run")
        told = read_json(file)
        if told.get("offer") != offer.digest:
            raise RefusedError("order:offer")
        sizes = checked_sizes(told["sizes"], offer, own.name)
        if sizes[own.name] != own.num_examples:
            raise RefusedError("data")
        return self._agreed(own, offer, sizes, checked_held(told["held"], offer, own.name))

    def _agreed(
        self, own: OwnSite, offer: Offer, sizes: Mapping[str, int], held_out: Mapping[str, int]
    ) -> Begun:
        """This site's part in a run of which all parties are known."""
        known = self._begun
        if known is not None and known.serves(own, offer):
            return known
        opened_offer, home = self._opened(own, offer), Home(own.home)
        built = opened_offer.built
        agreement = agree(
            built.terms, built.agreement.model, built.agreement.labels, sizes, held_out, own.name
        )
        built = replace(built, agreement=agreement)
        folder = home.opened_run(offer.run)
        accounts = open_accounts(built)
        try:
            refuse_beyond(accounts, lambda _: folder, offer.run)
        except ValueError as error:
            note(own.home)
            raise RefusedError("budget") from error
        built = remembering(built, lambda _: folder, folder, insist=False)
        [client] = build_clients(built, lambda _: folder, offer.run, accounts).values()
        limit, planned = limit_of(own.policy.privacy, offer, own.num_examples), client.budget
        if limit and planned:
            limit = limit.covering(planned.covers)
        client = replace(client, budget=limit)
        trainer = agreement.model.trainer
        responder = Responder(trainer, {ClientId(own.name): client})
        self._begun = Begun(
            offer=offer,
            built=built,
            client=client,
            responder=responder,
            policy=own.policy.digest,
            num_examples=own.num_examples,
        )
        return self._begun

    def _opened(self, own: OwnSite, offer: Offer) -> OpenOffer:
        """Model and records of an offer; those of the one before are let go."""
        if self._open is not None and self._open.offer.digest == offer.digest:
            return self._open
        self._open = self._begun = None
        federation = described(own, offer, folder_of_base(own, offer))
        sizes = dict.fromkeys(offer.participants, own.num_examples)  # others' come when it begins
        held = dict.fromkeys(offer.participants, own.num_held_out) if own.num_held_out else {}
        try:
            tables = read_tables(federation.terms, federation.records, scored=False)
        except ValueError as error:
            note(own.home)
            raise RefusedError("data") from error
        built = build_federation(
            federation,
            offer.began,
            lambda *_: Declared(sizes=sizes, held_out=held, whose=own.name),
            tables,
        )
        if built.agreement.model.digest != offer.base or built.agreement.labels != offer.labels:
            raise RefusedError("model")
        self._open = OpenOffer(offer=offer, built=built)
        return self._open


def described(own: OwnSite, offer: Offer, base: Path) -> Description:
    """The federation of one client that a site is in a run.

    Args:
        own: the site.
        offer: that it accepted.
        base: the folder of the base model, here.
    """
    values: dict[str, Any] = {}
    for part in (offer.terms, own.records, own.machine):
        values |= {f.name: getattr(part, f.name) for f in fields(part)}
    values["model"] = str(base)
    return Description(**values, lifetime=own.lifetime)


def _lines(begun: Begun, head: Mapping[str, Any]) -> bytes:
    """Charges since those that are known.

    Raises:
        RefusedError: if what is known is not in the ledger.
    """
    try:
        return begun.client.charges_since(head.get("known"), head.get("digest"))
    except SiloStoreError as error:
        raise RefusedError("ledger") from error


def _goes_on(before: Mapping[str, Any], told: Mapping[str, Any]) -> bool:
    """Whether who takes part is who did, with the same numbers, and perhaps others who joined."""
    return before["offer"] == told["offer"] and all(
        before[numbers].items() <= told[numbers].items() for numbers in ("sizes", "held")
    )


def _charges(terms: Terms) -> bool:
    """Whether the site's own mechanism hides records."""
    return terms.unit == "example"
