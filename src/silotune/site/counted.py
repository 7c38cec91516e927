"""Counted: what an offer would train of a base model that the site has, to the last number."""

from __future__ import annotations

from dataclasses import dataclass, replace

from silotune.federation.offer import Offer
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
    if offer.base not in own.models:
        raise ValueError(
            f"models: the base {offer.base} is not among this site's; name its folder there"
        )
    terms = replace(offer.terms, model=str(own.models[offer.base]))
    model = open_model(terms, offer.labels, own.machine)
    if model.digest != offer.base:
        raise ValueError(
            f"models: the base in {terms.model} has SHA-256 {model.digest}, not {offer.base}"
        )
    return Counted(
        tensors=len(model.plan.only_trained(model.first)),
        trained=model.trained,
        sent=model.shared,
        total=model.total,
    )
