"""At sites: the coordinator's end of a run whose clients are elsewhere.

Here no record and no site's folder is opened. What a site declares, what it has charged and what it
refuses comes in its answers; what it is to keep goes with the last order.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from silotune.certificate.at_sites import SITE_FIELDS
from silotune.certificate.issue import Told
from silotune.core import ClientId, ClientUpdate, GlobalState, encode_task
from silotune.core.files import write_json
from silotune.engine.client_releases import prices_of
from silotune.engine.loop import make_tasks
from silotune.models.hub import files_digest
from silotune.privacy import SiloStoreError
from silotune.privacy.ledger.entry import METRIC, UPDATE
from silotune.privacy.ledger.heard import HeardLedger
from silotune.runs.folder import RunFolder
from silotune.runs.unheard import LOST, Order, Unheard
from silotune.runtimes import Courier, Remote, Stragglers
from silotune.runtimes.messages import (
    ACCEPTED,
    ACCOUNT,
    BEGIN,
    FINISH,
    lines_of,
    message,
    opened,
    words,
)
from silotune.runtimes.remote import known
from silotune.terms import Agreement, BuiltModel
from silotune.terms.agreement import with_clients

from .acceptance import (
    ROUND_TRIP,
    Acceptance,
    Offering,
    SitesRefuseError,
    Tell,
    begun,
    told,
)
from .beside_sites import OFFERED, copies_of, offered_with, recorded, transports
from .built import Declare, Declared
from .description import Description
from .offer import Offer, digest_of_terms
from .trained_models import is_personal
from .versions import versions


class AtSites:
    """The sites of one run.

    Args:
        federation: as described.
        folder: of the run.
        courier: the way to them.
        run: its identity.
        began: when it began.
        tell: takes news while sites are waited for.
    """

    def __init__(
        self,
        federation: Description,
        folder: RunFolder,
        courier: Courier,
        run: str,
        began: str,
        tell: Tell,
    ) -> None:
        self._federation, self._folder, self._courier = federation, folder, courier
        self._run, self._began, self._tell = run, began, tell
        self._session = secrets.token_hex(8)
        self._accepted: Mapping[str, Acceptance] = {}
        self._offer: Offer | None = None
        self._offering: Offering | None = None
        self._ledgers: dict[str, HeardLedger] = {}
        self._remote: Remote | None = None
        self._unheard = Unheard(folder.unheard)
        self._goes_on = False
        self._transports = transports(folder, courier)

    @property
    def declare(self) -> Declare:
        """Offers the run to every site, and gives what they declare."""
        return self._declared

    @property
    def ledgers(self) -> Mapping[str, HeardLedger]:
        """What each site has told of its ledger."""
        return self._ledgers

    @property
    def told(self) -> Told:
        """What is known of the sites, for the certificate."""
        return Told(
            federation=self._accepted_by({name: {} for name in self._accepted}),
            hearings={name: self._unheard[name] for name in self._ledgers},
        )

    def settle(self) -> None:
        """Cross off what was heard, once it is in the run's copy of all ledgers."""
        self._unheard.settle()

    def begin(self, agreement: Agreement, done: int) -> Remote:
        """Tell all sites who takes part, and hear what they have charged so far.

        Of a run that goes on, a site may be gone: rounds need ``min_clients``.

        Args:
            agreement: with all who have accepted.
            done: rounds that are behind it.

        Raises:
            SitesRefuseError: if one does not begin, and nothing has been trained.
        """
        deadline, wait = self._federation.round_deadline, self._federation.wait_after_quorum
        patience = wait if self._goes_on and wait is not None else deadline
        missing = self._begun(agreement, agreement.sizes, patience, done)
        if self._goes_on and not self._folder.unheard.is_file():
            self._assume(agreement, done)
        if missing and not self._goes_on:
            raise SitesRefuseError(told(missing))
        for site in agreement.sizes.keys() - missing.keys():
            self._unheard.heard(site)
        for site, why in missing.items():
            self._tell(f"{site}: is not there ({why}); rounds go on if enough others are")
        self._note({})
        names = [ClientId(name) for name in agreement.sizes]
        stragglers = None
        if wait is not None:
            stragglers = Stragglers(agreement.terms.min_clients or len(names), wait)
        paid = self._unpaid if agreement.terms.unit == "example" else None
        self._remote = Remote(
            self._courier,
            names,
            deadline,
            self._ledgers,
            stragglers,
            paid,
            agreement.held_out,
            self._unheard,
        )
        return self._remote

    def joined(self, agreement: Agreement) -> Agreement | None:
        """Ask who has not accepted yet, and take in who does now; None if nobody does."""
        assert self._offering is not None
        grown = agreement
        for site, acceptance in self._offering.late().items():
            found = self._taken_in(grown, site, acceptance)
            grown = found or grown
        return grown if grown is not agreement else None

    def _taken_in(self, agreement: Agreement, site: str, declared: Acceptance) -> Agreement | None:
        """With one more site, which has begun; None if it cannot, and then it is asked again."""
        assert self._remote is not None
        assert self._offering is not None
        held_out = {site: declared.num_held_out} if agreement.held_out else {}
        try:
            self._refuse_other_sizes({site: declared})
            grown = with_clients(agreement, {site: declared.num_examples}, held_out)
        except ValueError as error:
            missing = {site: str(error)}
        else:
            missing = self._begun(
                grown, [site], min(ROUND_TRIP, self._federation.round_deadline), -1
            )
        if missing:
            self._tell(f"{site}: cannot join: {missing[site]}")
            self._ledgers.pop(site, None)
            self._offering.again(site)
            return None
        self._accepted = dict(sorted({**self._accepted, site: declared}.items()))
        self._note({})
        self._remote.join(ClientId(site), self._ledgers[site], held_out.get(site, 0))
        self._tell(f"{site}: takes part from now on")
        return grown

    def _assume(self, agreement: Agreement, done: int) -> None:
        """Count every order as sent that may have been, where the file of them is lost."""
        terms, experiment = agreement.terms, agreement.experiment(self._run)
        last = min(done + 1, terms.rounds)
        orders = {Order(UPDATE, n, LOST): experiment.cohort(n) for n in range(last)}
        scored = [n for n in range(1, last + 1) if terms.scored(n)]
        orders |= {Order(METRIC, n, LOST): experiment.clients for n in scored}
        for order, names in orders.items():
            priced = [name for name in names if order.release in self._ledgers[name].prices]
            self._unheard.asked(dict.fromkeys(priced, order))

    def _begun(
        self, agreement: Agreement, names: Collection[str], deadline: float, asked: int
    ) -> dict[str, str]:
        """Tell some sites who takes part, and hear them; why each has not begun.

        Args:
            agreement: with all of them.
            names: who is told.
            deadline: seconds.
            asked: the newest round that they may have been asked for; -1 if none.
        """
        assert self._offer is not None
        copies, private = copies_of(self._folder.ledger), agreement.terms.unit == "example"
        prices = {name: agreement.price(name) if private else None for name in names}
        for name in names:
            releases = prices_of(prices[name], agreement.releases(name))
            norm = agreement.mechanisms[name].max_grad_norm
            self._ledgers[name] = HeardLedger(
                name, self._run, releases, norm, copies.get(name, b"")
            )
            self._ledgers[name].asked(asked)
        shared: dict[str, object] = {
            "run": self._run,
            "session": self._session,
            "offer": self._offer.digest,
            "sizes": dict(agreement.sizes),
            "held": dict(agreement.held_out),
        }
        orders = {
            ClientId(name): message(BEGIN, {**shared, **known(self._ledgers[name])})
            for name in names
        }
        return begun(self._courier, orders, self._ledgers, prices, deadline)

    def hear(self) -> None:
        """Ask sites that may have charged, and were silent since, what it was.

        Of whoever stays silent, or tells what does not go on from what it told, the certificate
        counts every order as charged.
        """
        orders = {
            name: message(
                ACCOUNT,
                {"run": self._run, "session": self._session, **known(self._ledgers[name])},
            )
            for name in map(ClientId, self._unheard.silent())
        }
        if not orders:
            return
        for name, data in self._courier.exchange(orders, self._federation.round_deadline):
            answer = opened(data)
            if answer is not None and answer.kind == ACCEPTED:
                with suppress(SiloStoreError):
                    self._ledgers[name].hear(lines_of(answer)[0])
                    self._unheard.heard(name)
        for site in self._unheard.silent():
            self._tell(
                f"{site}: has not told what it charged, so the certificate counts all that it was "
                "asked for since; resume the run when it is back, and it counts what was charged"
            )

    def deliver(self, agreement: Agreement, state: GlobalState) -> Mapping[str, str]:
        """Hand every site the result, with its certificate to be held against its own ledger.

        Returns:
            Site -> why it did not take it; nothing for who did.
        """
        certificate = self._folder.privacy.read_text()
        experiment = agreement.experiment(self._run)
        names = [ClientId(name) for name in self._ledgers]
        tasks = {t.client: t for t in make_tasks(experiment, names, state)}
        orders = {
            name: message(
                FINISH,
                {
                    "run": self._run,
                    "session": self._session,
                    **known(self._ledgers[name]),
                    "certificate": certificate,
                },
                encode_task(task),
            )
            for name, task in tasks.items()
        }
        left: dict[str, str] = dict.fromkeys(self._ledgers, "no answer in time")
        silent = set(self._unheard.silent())
        for whom, patience in (
            (orders.keys() - silent, self._federation.round_deadline),
            (orders.keys() & silent, min(ROUND_TRIP, self._federation.round_deadline)),
        ):
            asked = {name: orders[name] for name in sorted(whom)}
            for name, data in self._courier.exchange(asked, patience) if asked else ():
                answer = opened(data)
                if answer is not None and answer.kind == ACCEPTED:
                    del left[name]
                else:
                    left[name] = words(answer.head.get("code")) if answer else "its answer is torn"
        self._note(left, delivered=True)
        if wrong := [site for site, why in left.items() if why == words("certificate")]:
            raise SiloStoreError(
                f"sites: {', '.join(wrong)} says that the certificate is not what its ledger "
                "says, so privacy.json is not to be relied on; resume the run, which asks all "
                "sites again"
            )
        for site, why in left.items():
            self._tell(f"{site}: has not taken the result: {why}")
        return left

    def _declared(self, model: BuiltModel, labels: tuple[str, ...]) -> Declared:
        self._refuse_unscored(model)
        federation = self._federation
        offer = self._offer = Offer(
            run=self._run,
            began=self._began,
            coordinator=federation.coordinator,
            title=federation.title,
            terms=federation.terms,
            labels=labels,
            base=model.digest,
            base_files=files_digest(federation.terms.model),
            participants=federation.records.elsewhere,
            versions=offered_with(self._folder, federation.terms.unit, versions()),
        )
        found = recorded(self._folder, offer)
        self._goes_on = bool(found)
        asked = [name for name in offer.participants if name not in found]
        self._offering = Offering(self._courier, offer, self._session, asked, self._tell)
        if not found:
            told = {"run": self._run, "began": self._began, "versions": dict(offer.versions)}
            write_json(self._folder.path / OFFERED, told)
            found = self._offering.accepted(federation.offer_deadline)
        self._accepted = found
        self._refuse_other_sizes(found)
        scored = federation.terms.privacy.metric_noise is not None
        return Declared(
            sizes={name: site.num_examples for name, site in found.items()},
            held_out={n: site.num_held_out for n, site in found.items()} if scored else {},
        )

    def _unpaid(self, update: ClientUpdate) -> bool:
        """Whether a site has not told of a charge for just this update."""
        sent = hashlib.sha256(update.sealed).hexdigest()
        book = self._ledgers[update.client].chain.book(self._run)
        return all(entry.sent != sent for entry in book.of(UPDATE, update.round))

    def _refuse_other_sizes(self, found: Mapping[str, Acceptance]) -> None:
        """A number that was planned with must be the one that the site declares."""
        declared = self._federation.records.num_examples
        for name, site in found.items():
            planned = declared.get(name) if isinstance(declared, Mapping) else declared
            if planned is not None and planned != site.num_examples:
                raise ValueError(
                    f"num_examples: {name} declares {site.num_examples:,}, and {planned:,} was "
                    "planned with; write its number, or none"
                )

    def _refuse_unscored(self, model: BuiltModel) -> None:
        if is_personal(model) and self._federation.terms.evaluation == "public":
            raise ValueError(
                "evaluation: must be site, as each site ends with a model of its own, which never "
                "leaves it and which nobody else can score"
            )

    def _note(self, left: Mapping[str, str], *, delivered: bool = False) -> None:
        """Write who accepted what, and who has the result."""
        sites = {
            name: {
                "num_held_out": acceptance.num_held_out,
                **({"result": left.get(name, "taken")} if delivered else {}),
            }
            for name, acceptance in self._accepted.items()
        }
        write_json(self._folder.sites_told, {"run": self._run, **self._accepted_by(sites)})

    def _accepted_by(self, besides: Mapping[str, Mapping[str, object]]) -> dict[str, Any]:
        """Who accepted which terms, as the certificate has it; more may stand beside each site."""
        assert self._offer is not None
        return {
            "coordinator": self._offer.coordinator,
            "transports": list(self._transports),
            "offer": self._offer.digest,
            "terms": digest_of_terms(self._offer.terms),
            "sites": {
                name: {**{f: getattr(site, f) for f in SITE_FIELDS}, **besides[name]}
                for name, site in self._accepted.items()
            },
        }
