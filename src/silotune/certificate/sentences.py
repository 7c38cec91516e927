"""Sentences: all that a certificate says in words, made from what it says in numbers and kinds.

Whoever issues a certificate and whoever checks one make them here. None is ever believed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from silotune.privacy.accounting.accountant import FINE

from .client_wording import CLIENT
from .example_wording import EXAMPLE
from .grounds import Grounds
from .guarantee import NO_NOISE, NOUNS, PROTECTED, RELATIONS, SEEDED
from .transports import carried
from .wording import RDP, Wording

WORDINGS: Mapping[str, Wording] = {"example": EXAMPLE, "client": CLIENT}
"""Unit of privacy -> its sentences."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """What the sentences follow from.

    Attributes:
        unit: what is hidden.
        relation: when two data sets are neighbours.
        mechanism: kinds of ``sampling`` and ``noise``, the ``source`` of both, ``clipping``.
        grid: of the privacy loss.
        counter: version of dp-accounting.
        finite: whether the noise bounds anything.
        coupling: of the certificate.
        transports: kinds of couriers; none in a simulation.
        grounds: the rest.
    """

    unit: str
    relation: str
    mechanism: Mapping[str, str]
    grid: float
    counter: str
    finite: bool
    coupling: Mapping[str, float]
    transports: Sequence[str] = ()
    grounds: Grounds


def sentences(said: Said) -> dict[str, Any]:
    """Field of the certificate -> what must stand there; ``holds_if`` is that of ``overall``.

    Raises:
        KeyError: if a kind is none that is known.
    """
    words, grounds = WORDINGS[said.unit], said.grounds
    accountant, cross_check = accountants(said)
    return {
        "not_private_because": because(said),
        "hidden": PROTECTED[said.unit],
        "neighbours": RELATIONS[said.relation].format(noun=NOUNS[said.unit]),
        "sampling": words.sampling_of(said.mechanism, grounds),
        "noise": words.noise_of(said.mechanism),
        "accountant": accountant,
        "cross_check": cross_check,
        "adversary": words.adversary,
        "trust_model": words.trust_model,
        "transport": carried(said.unit, said.transports),
        "released": list(words.released(said.mechanism, grounds)),
        "not_covered": list(
            words.not_covered(said.mechanism, grounds, together=said.coupling.get("together") != 1)
        ),
        "not_claimed": list(words.not_claimed(said.mechanism)),
        "holds_if": holds_if(said),
    }


def rule(said: Said) -> str:
    """How the figure of all accounts follows from theirs: ``maximum`` or ``composition``."""
    composed = said.grounds.composed and WORDINGS[said.unit].if_composed
    return "composition" if composed and not because(said) else "maximum"


def holds_if(said: Said) -> str:
    """Under which condition it does."""
    words = WORDINGS[said.unit]
    if because(said):
        return words.if_infinite
    return words.if_composed if rule(said) == "composition" else words.holds_if


def because(said: Said) -> str:
    """Why nothing is private; empty if something is."""
    if said.mechanism.get("source") == "seed":
        return SEEDED
    return "" if said.finite else NO_NOISE


def accountants(said: Said) -> tuple[str, str]:
    """By what epsilon was computed, and by what it was checked."""
    by = f"the algorithms of dp-accounting {said.counter}"
    if said.grid <= FINE:  # as ``issue`` counts
        by += ", which has counted the largest figure itself"
    pld = f"PLD (by {by}), grid {said.grid:g}"
    sampling = said.mechanism["sampling"]
    if said.mechanism["noise"] == "discrete":
        pld += ", of the Gaussian noise that the discrete noise is a rounding of"
    if sampling == "truncated-poisson" or (
        sampling == "poisson" and said.relation == "replace-one"
    ):
        return pld, "none: Rényi divergences do not cover this sampling under this relation"
    return pld, f"{RDP}, which may never give less"
