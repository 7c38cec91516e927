"""At sites: the coordinator's end of a run whose clients are elsewhere.

Here no record and no site's folder is opened. What a site declares, what it has charged and what it
refuses comes in its answers; what it is to keep goes with the last order.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

from silotune.certificate.at_sites import SITE_FIELDS
from silotune.certificate.issue import Told
from silotune.certificate.transports import TRANSPORTS, kind_of
from silotune.core import ClientId, ClientUpdate, GlobalState, encode_task
from silotune.core.files import build, read_json, whole_lines, write_json
from silotune.engine.client_releases import prices_of
from silotune.engine.loop import make_tasks
from silotune.models.hub import files_digest
from silotune.privacy import SiloStoreError
from silotune.privacy.ledger.chain import read_line
from silotune.privacy.ledger.entry import UPDATE
from silotune.privacy.ledger.heard import HeardLedger
from silotune.runs.folder import RunFolder
from silotune.runs.unheard import Unheard
from silotune.runtimes import Courier, Remote, Stragglers
from silotune.runtimes.messages import ACCEPTED, ACCOUNT, FINISH, lines_of, message, opened, words
from silotune.runtimes.remote import known
from silotune.terms import Agreement, BuiltModel

from .acceptance import (
    ROUND_TRIP,
    Acceptance,
    SitesRefuseError,
    Tell,
    begun,
    offered,
    told,
)
from .built import Declare, Declared
from .description import Description
from .offer import Offer, digest_of_terms
from .trained_models import is_personal
from .versions import versions

OFFERED = "offer.json"
"""In a run's folder: the offer that is out, so that who stops waiting can go on with it."""


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
        self._ledgers: Mapping[str, HeardLedger] = {}
        self._unheard = Unheard(folder.unheard)
        self._goes_on = False
        self._transports = _transports(folder, courier)

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

    def begin(self, agreement: Agreement) -> Remote:
        """Tell all sites who takes part, and hear what they have charged so far.

        Of a run that goes on, a site may be gone: rounds need ``min_clients``.

        Raises:
            SitesRefuseError: if one does not begin, and nothing has been trained.
        """
        assert self._offer is not None
        copies = _copies(self._folder.ledger)
        private = agreement.terms.unit == "example"
        prices = {name: agreement.price(name) if private else None for name in agreement.sizes}
        self._ledgers = {
            name: HeardLedger(
                name,
                self._run,
                prices_of(prices[name], agreement.releases(name)),
                copies.get(name, b""),
            )
            for name in agreement.sizes
        }
        deadline, wait = self._federation.round_deadline, self._federation.wait_after_quorum
        missing = begun(
            self._courier,
            self._offer,
            self._session,
            agreement.sizes,
            agreement.held_out,
            self._ledgers,
            prices,
            wait if self._goes_on and wait is not None else deadline,
        )
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
        paid = self._unpaid if private else None
        return Remote(
            self._courier,
            names,
            deadline,
            self._ledgers,
            stragglers,
            paid,
            agreement.held_out,
            self._unheard,
        )

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
        there = {name: order for name, order in orders.items() if name not in silent}
        away = {name: order for name, order in orders.items() if name in silent}
        for name, data in chain(
            self._courier.exchange(there, self._federation.round_deadline),
            self._courier.exchange(away, min(ROUND_TRIP, self._federation.round_deadline)),
        ):
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
            versions=versions(),
        )
        found = _recorded(self._folder, offer)
        self._goes_on = bool(found)
        if not found:
            write_json(self._folder.path / OFFERED, {"run": self._run, "began": self._began})
            found = offered(
                self._courier, offer, self._session, federation.offer_deadline, self._tell
            )
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


def offer_out(folder: RunFolder) -> tuple[str, str] | None:
    """Run and beginning of an offer that is out and has not begun; None if there is none."""
    file = folder.path / OFFERED
    if folder.state.is_file() or not file.is_file():
        return None
    match read_json(file):
        case {"run": str(run), "began": str(began)}:
            return run, began
    return None


def _transports(folder: RunFolder, courier: Courier) -> list[str]:
    """Kinds of the couriers that the run had before, and of this one."""
    before = []
    if folder.sites_told.is_file():
        before = [kind for kind in read_json(folder.sites_told)["transports"] if kind in TRANSPORTS]
    return sorted({*before, kind_of(courier)})


def _recorded(folder: RunFolder, offer: Offer) -> dict[str, Acceptance]:
    """Who takes part in a run that has begun; empty if none has, or by another offer."""
    if not folder.sites_told.is_file() or not folder.state.is_file():
        return {}
    told = read_json(folder.sites_told)
    if told.get("offer") != offer.digest:
        return {}
    where = str(folder.sites_told)
    return {name: build(Acceptance, site, where) for name, site in told["sites"].items()}


def _copies(ledger: Path) -> dict[str, bytes]:
    """By account, the lines of a run's collected ledger as they stand in it."""
    found: dict[str, bytes] = {}
    data = whole_lines(ledger.read_bytes()) if ledger.is_file() else b""
    for number, line in enumerate(data.splitlines(keepends=True), start=1):
        name = read_line(line, ledger, number).entry.silo
        found[name] = found.get(name, b"") + line
    return found
