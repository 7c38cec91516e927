"""Approval: what a person at a site has said to an offer, and what follows from it.

It is bound to the digest of the offer. One that was altered under the same name is another offer,
to which nobody has said anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from silotune.core.fields import check_fields
from silotune.core.names import is_digest
from silotune.federation.offer import Offer

from .policy import Policy

WAITS = "approval"
"""Of an offer that nobody has looked at yet; whoever asks may ask again."""

REFUSED = "policy:approve"
"""Of an offer that a person has refused."""


@dataclass(frozen=True, kw_only=True)
class Approval:
    """A person's word.

    Attributes:
        offer: SHA-256 of what was looked at.
        decision: what was said.
        time: when, in ISO 8601, UTC.

    Raises:
        ValueError: naming the field, if one is none.
    """

    offer: str
    decision: Literal["approved", "refused"]
    time: str

    def __post_init__(self) -> None:
        check_fields(self)
        if not is_digest(self.offer):
            raise ValueError("offer: is no digest")


def hindrance(policy: Policy, offer: Offer, said: Approval | None) -> str | None:
    """The code that keeps an offer from beginning, as far as people are concerned; or None.

    A person's refusal counts whatever the policy is.

    Args:
        policy: of the site.
        offer: as it came.
        said: to any offer of this name; None if nothing was.
    """
    word = said.decision if said is not None and said.offer == offer.digest else None
    if word == "refused":
        return REFUSED
    if word == "approved" or policy.approve == "any":
        return None
    if policy.approve == "listed" and offer.digest in policy.approved:
        return None
    return WAITS
