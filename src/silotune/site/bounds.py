"""Bounds: numbers and patterns with which no site begins, since it would never end with them.

They are far beyond what anybody trains; rounds and steps have those of the policy. What is within
them may still be too large for a machine; that ends in an error there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields

from silotune.federation.offer import Offer
from silotune.methods import Method

MOST_SITES = 1_000
MOST_BANDS = 10_000
MOST_OPTION = 4_096
"""A whole number of a method: a rank, rounds, layers, experts."""

MOST_NAMES = 1_000
"""Names in a list of a method, and characters of a name."""

_NAMES = re.compile(r"[A-Za-z0-9_.,-]*")
"""Names of layers, and no pattern: some patterns are searched for until the end of days."""


def beyond(offer: Offer) -> Iterator[str]:
    """Fields of an offer that are out of bounds, and the bound.

    Args:
        offer: of classes of the catalogue.
    """
    terms, method = offer.terms, offer.terms.method
    for name, asked, most in (
        ("participants", len(offer.participants), MOST_SITES),
        ("bands", getattr(terms.privacy, "bands", None) or 0, MOST_BANDS),
    ):
        if asked > most:
            yield f"{name} (at most {most:,})"
    for rule in (method, method.aggregation) if method.aggregation else (method,):
        yield from (f"method.{name} ({why})" for name, why in _of_method(rule))


def _of_method(method: Method) -> Iterator[tuple[str, str]]:
    for field in fields(method):
        value = getattr(method, field.name)
        parts = [*_parts(value)]
        if len(parts) > MOST_NAMES:
            yield field.name, f"at most {MOST_NAMES:,} of them"
        elif not field.name.endswith("seed") and any(_is_large(part) for part in parts):
            yield field.name, f"at most {MOST_OPTION:,}"
    for name in ("target_modules", "target_parameters"):
        if not all(_is_name(part) for part in _parts(getattr(method, name))):
            yield name, "names of layers, no regular expression"


def _parts(value: object) -> Iterator[object]:
    """A value, or those that it consists of."""
    match value:
        case tuple():
            yield from value
        case Mapping():
            yield from value.values()
        case None:
            pass
        case _:
            yield value


def _is_large(value: object) -> bool:
    return isinstance(value, int) and value > MOST_OPTION


def _is_name(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MOST_NAMES and bool(_NAMES.fullmatch(value))
