"""At sites: the coordinator's end of a run whose clients are elsewhere.

Here no record and no site's folder is opened. What a site declares, what it has charged and what it
refuses comes in its answers; what it is to keep goes with the last order.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from silotune.core import ClientId, ClientUpdate, GlobalState, encode_task
from silotune.core.files import read_json, whole_lines, write_json
from silotune.engine.client_releases import prices_of
from silotune.engine.loop import make_tasks
from silotune.models.hub import files_digest
from silotune.privacy import SiloStoreError
from silotune.privacy.ledger.chain import read_line
from silotune.privacy.ledger.entry import UPDATE
from silotune.privacy.ledger.heard import HeardLedger
from silotune.runs.folder import RunFolder
from silotune.runtimes import Courier, Remote, Stragglers
from silotune.runtimes.messages import ACCEPTED, ACCOUNT, FINISH, lines_of, message, opened, words
from silotune.runtimes.remote import known
from silotune.terms import Agreement, BuiltModel

from .acceptance import Acceptance, Tell, begun, offered
from .built import Declare, Declared
from .description import Description
from .offer import Offer
from .trained_models import is_personal
from .versions import versions

SITES = "sites.json"
"""In a run's folder: who accepted the offer of which digest, under which policy, and who has the
result."""

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
        self._remote: Remote | None = None

    @property
    def declare(self) -> Declare:
        """Offers the run to every site, and gives what they declare."""
        return self._declared

    @property
    def ledgers(self) -> Mapping[str, HeardLedger]:
        """What each site has told of its ledger."""
        return self._ledgers

    def begin(self, agreement: Agreement) -> Remote:
        """Tell all sites who takes part, and hear what they have charged so far.

        Raises:
            SitesRefuseError: if one does not begin.
            SiloStoreError: if one has lost charges that it told before.
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
        deadline = self._federation.round_deadline
        begun(
            self._courier,
            self._offer,
            self._session,
            agreement.sizes,
            agreement.held_out,
            self._ledgers,
            prices,
            deadline,
        )
        self._note({})
        names = [ClientId(name) for name in agreement.sizes]
        stragglers, wait = None, self._federation.wait_after_quorum
        if wait is not None:
            stragglers = Stragglers(agreement.terms.min_clients or len(names), wait)
        paid = self._unpaid if private else None
        self._remote = Remote(
            self._courier, names, deadline, self._ledgers, stragglers, paid, agreement.held_out
        )
        return self._remote

    def hear(self) -> None:
        """Ask sites that may have charged, and were silent since, what it was.

        Raises:
            SiloStoreError: if one of them stays silent, so that what was spent is not known.
        """
        assert self._remote is not None
        orders = {
            name: message(
                ACCOUNT,
                {"run": self._run, "session": self._session, **known(self._ledgers[name])},
            )
            for name in self._remote.unheard
        }
        if not orders:
            return
        for name, data in self._courier.exchange(orders, self._federation.round_deadline):
            answer = opened(data)
            if answer is not None and answer.kind == ACCEPTED:
                self._ledgers[name].hear(lines_of(answer)[0])
                self._remote.unheard.discard(name)
        if silent := sorted(self._remote.unheard):
            raise SiloStoreError(
                f"sites: {', '.join(silent)} did not say what was charged since it was asked last, "
                "so no certificate can tell what was spent; resume the run when it is back"
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
        for name, data in self._courier.exchange(orders, self._federation.round_deadline):
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
        write_json(self._folder.path / OFFERED, {"run": self._run, "began": self._began})
        found = self._accepted = offered(
            self._courier, offer, self._session, federation.offer_deadline, self._tell
        )
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
        assert self._offer is not None
        sites = {
            name: {
                **asdict(acceptance),
                **({"result": left.get(name, "taken")} if delivered else {}),
            }
            for name, acceptance in self._accepted.items()
        }
        write_json(
            self._folder.path / SITES,
            {"run": self._run, "offer": self._offer.digest, "sites": sites},
        )


def offer_out(folder: RunFolder) -> tuple[str, str] | None:
    """Run and beginning of an offer that is out and has not begun; None if there is none."""
    file = folder.path / OFFERED
    if folder.state.is_file() or not file.is_file():
        return None
    match read_json(file):
        case {"run": str(run), "began": str(began)}:
            return run, began
    return None


def _copies(ledger: Path) -> dict[str, bytes]:
    """By account, the lines of a run's collected ledger as they stand in it."""
    found: dict[str, bytes] = {}
    data = whole_lines(ledger.read_bytes()) if ledger.is_file() else b""
    for number, line in enumerate(data.splitlines(keepends=True), start=1):
        name = read_line(line, ledger, number).entry.silo
        found[name] = found.get(name, b"") + line
    return found
