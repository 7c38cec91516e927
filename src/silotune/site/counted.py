"""Counted: what an offer would train of a base model that the site has, to the last number."""

from __future__ import annotations

from dataclasses import dataclass, replace

from silotune.federation.offer import Offer
from silotune.models.hub import files_digest
from silotune.terms import open_model

from .own import OwnSite


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Sizes of a model as an offer adapts it.

    Attributes:
        tensors: that are trained in the first round.
        trained: numbers in them.
        sent: numbers of them that leave in the first round.
        total: numbers of the whole model.
    """

    tensors: int
    trained: int
    sent: int
    total: int


def counted(own: OwnSite, offer: Offer) -> Counted:
    """Open the base model, adapt it as the offer says, and count; no record is read.

    Args:
        own: the site.
        offer: that its policy does not refuse, since this runs what the offer describes.

    Raises:
        ValueError: in words, if the site does not have the base, or it cannot be adapted so.
    """
    place = own.models.get(offer.base_files)
    if place is None:
        raise ValueError(
            f"models: the base {offer.base_files} is not among this site's; name its folder there"
        )
    if (here := files_digest(str(place))) != offer.base_files:
        raise ValueError(
            f"models: the files of weights in {place} have SHA-256 {here or '(there are none)'}, "
            f"not {offer.base_files}"
        )
    model = open_model(replace(offer.terms, model=str(place)), offer.labels, own.machine)
    return Counted(
        tensors=len(model.plan.only_trained(model.first)),
        trained=model.trained,
        sent=model.shared,
        total=model.total,
    )
