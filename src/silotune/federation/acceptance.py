"""Acceptance: a coordinator offers a run to its sites, and begins it with those who take part.

What a site says is declared by it, or a code of a fixed list. A site that waits for a person is
asked again; one that refuses ends the beginning, before anything trains, and is named.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from silotune.certificate.at_sites import is_time
from silotune.core import ClientId
from silotune.core.names import is_digest
from silotune.core.plain import plain
from silotune.privacy import AnyCharge, SiloStoreError
from silotune.privacy.accounting.charges import close, from_json
from silotune.privacy.ledger.heard import HeardLedger
from silotune.runtimes import Courier
from silotune.runtimes.messages import (
    ACCEPTED,
    BEGIN,
    OFFER,
    REFUSED,
    Message,
    lines_of,
    message,
    opened,
    words,
)
from silotune.runtimes.remote import OTHER_LEDGER, known

from .offer import Offer

WAITING = "approval"
"""The code of a site where nobody has looked at the offer yet."""

ROUND_TRIP = 30.0
"""Seconds in which a site that is there says something; who says nothing is asked again."""

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


def offered(
    courier: Courier,
    offer: Offer,
    session: str,
    patience: float,
    tell: Tell,
    pause: float = 1.0,
) -> dict[str, Acceptance]:
    """Offer a run to every participant, until all have accepted it.

    Args:
        courier: the way to them.
        offer: what they are asked.
        session: of this process, so that nobody takes what was said to an earlier one for an
            answer to this.
        patience: seconds until who has not accepted ends it.
        tell: takes news: who has accepted, and for whom is waited.
        pause: seconds before who waits for a person is asked again; twice as long each time.

    Raises:
        SitesRefuseError: if one refuses, or has not accepted in time.
    """
    tell(f"offered as {offer.run} to {', '.join(offer.participants)}")
    end = time.monotonic() + patience
    asked, found = dict.fromkeys(offer.participants, 0), dict[str, Acceptance]()
    waited: set[str] = set()
    while asked:
        left = end - time.monotonic()
        if left <= 0:
            raise SitesRefuseError(_not_all(asked, waited))
        orders = {
            ClientId(site): message(
                OFFER, {"session": session, "attempt": attempt}, offer.to_bytes()
            )
            for site, attempt in asked.items()
        }
        refused = dict[str, str]()
        for site, data in courier.exchange(orders, min(left, ROUND_TRIP)):
            if site not in asked:  # nobody that was asked, or who has answered already
                continue
            answer, attempt = opened(data), asked.pop(site)
            if answer is not None and answer.kind == ACCEPTED:
                found[site] = _acceptance(answer, offer, site)
                tell(f"{site}: accepted, {found[site].num_examples:,} records declared")
            elif answer is not None and answer.head.get("code") == WAITING:
                if site not in waited:
                    tell(f"{site}: waits for somebody there: silotune site show {offer.run}")
                waited.add(site)
                asked[site] = attempt + 1
            else:
                refused[site] = words(answer.head.get("code")) if answer else "its answer is torn"
        if refused:
            raise SitesRefuseError(told(refused))
        if asked:
            time.sleep(min(pause, max(0.0, end - time.monotonic())))
            pause = min(2 * pause, ROUND_TRIP)
    return dict(sorted(found.items()))


def begun(
    courier: Courier,
    offer: Offer,
    session: str,
    sizes: Mapping[str, int],
    held_out: Mapping[str, int],
    ledgers: Mapping[str, HeardLedger],
    prices: Mapping[str, AnyCharge | None],
    deadline: float,
) -> dict[str, str]:
    """Tell every site who takes part; hear what each has charged so far, and its price of a round.

    Args:
        courier: the way to them.
        offer: that they accepted.
        session: of this process.
        sizes: the public number of records of each.
        held_out: the same of held-out ones.
        ledgers: of each; what it has charged before, in a run that is resumed, is heard.
        prices: what a round costs each, as this machine computes it.
        deadline: seconds.

    Returns:
        Site -> why it has not begun: it refuses, is silent, has lost charges that it told before,
        or prices a round otherwise.
    """
    shared: dict[str, object] = {"run": offer.run, "session": session, "offer": offer.digest}
    shared |= {"sizes": dict(sizes), "held": dict(held_out)}
    orders = {ClientId(site): message(BEGIN, {**shared, **known(ledgers[site])}) for site in sizes}
    missing, refused = set(sizes), dict[str, str]()
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


def _acceptance(answer: Message, offer: Offer, site: str) -> Acceptance:
    """What an answer declares.

    Raises:
        SitesRefuseError: if it is no acceptance of this offer.
    """
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
    raise SitesRefuseError(f"sites: {site} answered something else than an acceptance of this run")


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


def _not_all(asked: Mapping[str, int], waited: set[str]) -> str:
    """Who has not accepted in time, and what each needs."""
    silent = [site for site in asked if site not in waited]
    parts = []
    if waited & asked.keys():
        there = ", ".join(sorted(waited & asked.keys()))
        parts.append(f"nobody has approved the run at {there} (silotune site approve, there)")
    if silent:
        parts.append(f"{', '.join(silent)} did not answer (does silotune site serve run there?)")
    return "sites: " + "; ".join(parts)
