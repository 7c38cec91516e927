"""Permission: what an order must be before a site works on it, or else a code that goes out."""

from __future__ import annotations

from pathlib import Path

from silotune.federation.acceptance import fewest
from silotune.federation.offer import Offer
from silotune.models.hub import files_digest

from .approval import hindrance
from .home import Home
from .own import OwnSite
from .refusal import refusal as not_allowed


class RefusedError(Exception):
    """An order that is not carried out; the code goes out, and nothing else."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def accepted_offer(own: OwnSite, run: object) -> Offer:
    """The offer of a run that is still allowed.

    Raises:
        RefusedError: if there is none, or it is not.
    """
    try:
        offer = Home(own.home).offer(str(run))
    except ValueError as error:
        raise RefusedError("order:run") from error
    check_allowed(own, offer)
    return offer


def check_allowed(own: OwnSite, offer: Offer) -> None:
    """That the site is asked, its policy allows the offer, and people do.

    Raises:
        RefusedError: naming the first that is not so.
    """
    if own.name not in offer.participants:
        raise RefusedError("order:participants")
    said = Home(own.home).approval(offer.run)
    code = not_allowed(own.policy, offer, own.num_examples) or hindrance(own.policy, offer, said)
    if code:
        raise RefusedError(code)


def folder_of_base(own: OwnSite, offer: Offer) -> Path:
    """The folder of the base model, if this site has it.

    Raises:
        RefusedError: if it has not, or its files are others.
    """
    place = own.models.get(offer.base_files)
    if place is None or files_digest(str(place)) != offer.base_files:
        raise RefusedError("model")
    return place


def checked_sizes(told: object, offer: Offer, site: str) -> dict[str, int]:
    """Numbers of records of those who take part: this site, and as many as a run begins with.

    Raises:
        RefusedError: if they are none.
    """
    participants = set(offer.participants)
    if not isinstance(told, dict) or site not in told or not told.keys() <= participants:
        raise RefusedError("order:sizes")
    if len(told) < fewest(offer.terms, len(participants)):
        raise RefusedError("order:sizes")
    if any(type(size) is not int or size < 1 for size in told.values()):
        raise RefusedError("order:sizes")
    return dict(sorted(told.items()))


def checked_held(told: object, offer: Offer, site: str) -> dict[str, int]:
    """The same of held-out records; none where no noisy score is divided by them.

    Raises:
        RefusedError: if they are none.
    """
    if offer.terms.privacy.metric_noise is None:
        if told not in ({}, None):
            raise RefusedError("order:held")
        return {}
    return checked_sizes(told, offer, site)
