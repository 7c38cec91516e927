"""Acceptance: a coordinator offers a run to its sites, and begins it with those who take part.

What a site says is declared by it, or a code of a fixed list. A site that waits for a person is
asked again; one that refuses ends the beginning, before anything trains, and is named.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from silotune.core import ClientId
from silotune.core.names import is_digest, is_time
from silotune.core.plain import plain
from silotune.privacy import AnyCharge, SiloStoreError
from silotune.privacy.accounting.charges import close, from_json
from silotune.privacy.ledger.heard import HeardLedger
from silotune.runtimes import Courier
from silotune.runtimes.messages import (
    ACCEPTED,
    OFFER,
    REFUSED,
    Message,
    lines_of,
    message,
    opened,
    words,
)
from silotune.runtimes.remote import OTHER_LEDGER
from silotune.terms import Terms

from .offer import Offer

WAITING = "approval"
"""The code of a site where nobody has looked at the offer yet."""

ROUND_TRIP = 30.0
"""Seconds in which a site that is there says something; who says nothing is asked again."""

KNOCK = 2.0
"""Seconds of a round in which who has not accepted yet is asked again."""

MOST_RECORDS = 10**9
"""That one site may declare."""

Tell = Callable[[str], None]
"""Takes a sentence for whoever waits."""


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """What a site declares when it takes part.

    Attributes:
        num_examples: its public number of records.
        num_held_out: the same of held-out ones; 0 where none is needed.
        policy: SHA-256 of its policy.
        accepted: when, in ISO 8601, by its clock.
        versions: of its software.
    """

    num_examples: int
    num_held_out: int
    policy: str
    accepted: str
    versions: Mapping[str, str] = field(default_factory=dict)


class SitesRefuseError(ValueError):
    """Sites do not take part; the message names each, and what it refers to."""


class Offering:
    """An offer that is out, to sites that have not accepted it yet.

    Args:
        courier: the way to them.
        offer: what they are asked.
        session: of this process, so that nobody takes what was said to an earlier one for an
            answer to this.
        asked: whom.
        tell: takes news: who has accepted, and for whom is waited.
    """

    def __init__(
        self, courier: Courier, offer: Offer, session: str, asked: Iterable[str], tell: Tell
    ) -> None:
        self._courier, self._offer, self._session, self._tell = courier, offer, session, tell
        self._attempts = dict.fromkeys(asked, 0)
        self._said: dict[str, str] = {}

    def accepted(self, patience: float, pause: float = 1.0) -> dict[str, Acceptance]:
        """Ask until all have accepted, or time is over and as many have as a run begins with.

        Args:
            patience: seconds until who has not accepted ends it, or is left to join later.
            pause: seconds before who waits for a person is asked again; twice as long each time.

        Raises:
            SitesRefuseError: if one refuses, or too few have accepted in time.
        """
        self._tell(f"offered as {self._offer.run} to {', '.join(self._attempts)}")
        least = fewest(self._offer.terms, len(self._offer.participants))
        end, found = time.monotonic() + patience, dict[str, Acceptance]()
        while self._attempts:
            left = end - time.monotonic()
            if left <= 0:
                if len(found) < least:
                    raise SitesRefuseError(self._not_all())
                break
            refused = dict[str, str]()
            for site, said in self._answers(min(left, ROUND_TRIP)):
                if isinstance(said, Acceptance):
                    found[site] = said
                elif said != words(WAITING):
                    refused[site] = said
            if refused:
                raise SitesRefuseError(told(refused))
            if self._attempts:
                time.sleep(min(pause, max(0.0, end - time.monotonic())))
                pause = min(2 * pause, ROUND_TRIP)
        for site in self._attempts:
            self._tell(f"{site}: has not accepted; the run begins, and it may join a later round")
        return dict(sorted(found.items()))

    def late(self) -> dict[str, Acceptance]:
        """Ask once more, and not for long: who accepts now. Whoever refuses is asked again."""
        if not self._attempts:
            return {}
        answers = self._answers(KNOCK)
        return {site: said for site, said in answers if isinstance(said, Acceptance)}

    def again(self, site: str) -> None:
        """Ask a site again that has accepted, and could not begin."""
        self._attempts[site] = 0

    def _answers(self, deadline: float) -> Iterator[tuple[str, Acceptance | str]]:
        """What each says, or why it does not accept."""
        orders = {
            ClientId(site): message(
                OFFER, {"session": self._session, "attempt": attempt}, self._offer.to_bytes()
            )
            for site, attempt in self._attempts.items()
        }
        waiting = set[str](orders)
        for site, data in self._courier.exchange(orders, deadline):
            if site not in waiting:  # nobody that was asked, or who has answered already
                continue
            waiting.discard(site)
            answer = opened(data)
            said = _said(answer, self._offer) if answer else "its answer is torn"
            if isinstance(said, Acceptance):
                del self._attempts[site]
                self._tell(f"{site}: accepted, {said.num_examples:,} records declared")
            else:
                self._attempts[site] += 1
                self._note(site, said)
            yield site, said

    def _note(self, site: str, said: str) -> None:
        """Tell why a site does not accept, unless it was told before."""
        if self._said.get(site) != said:
            waits = f"waits for somebody there: silotune site show {self._offer.run}"
            self._tell(f"{site}: {waits if said == words(WAITING) else said}")
        self._said[site] = said

    def _not_all(self) -> str:
        """Who has not accepted in time, and what each needs."""
        waited = {site for site in self._attempts if site in self._said}
        silent = [site for site in self._attempts if site not in waited]
        parts = []
        if waited:
            there = ", ".join(sorted(waited))
            parts.append(f"nobody has approved the run at {there} (silotune site approve, there)")
        if silent:
            parts.append(
                f"{', '.join(silent)} did not answer (does silotune site serve run there?)"
            )
        return "sites: " + "; ".join(parts)


def fewest(terms: Terms, asked: int) -> int:
    """With how many of the sites that are asked a run begins; others may join a later round.

    With all of them, where the noise is made for a fixed number of clients (``unit: client``),
    clients have ranks of their own, or rounds ask some of them: whom, and so what each pays, is
    drawn among all.
    """
    fixed = terms.unit == "client" or terms.method.ranks or not terms.cohorts.of_all
    if fixed or terms.min_clients is None:
        return asked
    return min(terms.min_clients, asked)


def begun(
    courier: Courier,
    orders: Mapping[ClientId, bytes],
    ledgers: Mapping[str, HeardLedger],
    prices: Mapping[str, AnyCharge | None],
    deadline: float,
) -> dict[str, str]:
    """Tell sites who takes part; hear what each has charged so far, and its price of a round.

    Args:
        courier: the way to them.
        orders: to each.
        ledgers: of each; what it has charged before, in a run that is resumed, is heard.
        prices: what a round costs each, as this machine computes it.
        deadline: seconds.

    Returns:
        Site -> why it has not begun: it refuses, is silent, has lost charges that it told before,
        or prices a round otherwise.
    """
    missing, refused = set[str](orders), dict[str, str]()
    for site, data in courier.exchange(orders, deadline):
        missing.discard(site)
        answer = opened(data)
        if answer is None or answer.kind != ACCEPTED:
            code = answer.head.get("code") if answer and answer.kind == REFUSED else None
            refused[site] = words(code)
            continue
        if not _same_price(prices[site], answer.head.get("charge")):
            refused[site] = "it computes another noise, so its software does not fit"
            continue
        try:
            ledgers[site].hear(lines_of(answer)[0])
        except SiloStoreError:
            refused[site] = OTHER_LEDGER
    return refused | dict.fromkeys(sorted(missing), "no answer in time")


def _said(answer: Message, offer: Offer) -> Acceptance | str:
    """What an answer declares, or why it does not accept."""
    if answer.kind != ACCEPTED:
        return words(answer.head.get("code"))
    match dict(answer.head):
        case {
            "offer": offer.digest,
            "num_examples": int(size),
            "num_held_out": int(held),
            "policy": str(policy),
            "accepted": accepted,
            "versions": dict(versions),
        } if (
            _is_size(size, 1)
            and _is_size(held, 0)
            and is_digest(policy)
            and is_time(accepted)
            and all(isinstance(version, str) for version in versions.values())
        ):
            return Acceptance(
                num_examples=size,
                num_held_out=held,
                policy=policy,
                accepted=accepted,
                versions={plain(k, 40): plain(v, 40) for k, v in [*versions.items()][:20]},
            )
    return "it answered something else than an acceptance of this run"


def _is_size(number: int, least: int) -> bool:
    """Whether a site may declare so many records; JSON's true is no number."""
    return type(number) is int and least <= number <= MOST_RECORDS


def _same_price(here: AnyCharge | None, there: object) -> bool:
    """Whether a site charges for a round what this machine thinks, up to the last digits."""
    if here is None or there is None:
        return here is None and there is None
    try:
        return close(here, from_json(there))
    except ValueError:
        return False


def told(refused: Mapping[str, str]) -> str:
    """Who does not take part, and why."""
    return "sites: " + "; ".join(f"{site}: {why}" for site, why in refused.items())
