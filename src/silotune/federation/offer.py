"""Offer: what a coordinator asks a site to take part in. Public, and meant to be read by people.

An offer comes from somebody whom nobody trusts. It is data: it names classes of a fixed list and
brings in no code, and whatever is wrong with it is said by a field's name, never by its value.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Self

from silotune.core.names import case_twins, is_client_name, is_digest, is_run_name
from silotune.terms import Terms

from .identity import decoded, encoded

PROTOCOL = 1
"""Of the messages between a coordinator and its sites; another number is another language."""

LARGEST = 1_000_000
"""Bytes of an offer. A person is to read it."""

_ROOMS = (
    "silotune.terms.terms:Terms",
    "silotune.methods.",
    "silotune.objectives.",
    "silotune.optim.",
    "silotune.aggregation.",
    "silotune.privacy.choice:",
    "builtins:float",
    "builtins:frozenset",
)
"""Where the classes are defined that an offer may name."""


class OfferError(ValueError):
    """Not an offer, or one of another protocol; the message names a field, and never a value."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A run that a site may take part in.

    Attributes:
        run: identifies the run.
        began: when, in ISO 8601; chat templates print this date.
        coordinator: who asks, as it calls itself; the transport knows whether that is true.
        title: for people.
        terms: what is to be agreed. ``terms.model`` is the coordinator's word for the base.
        labels: the public label set in order of ids; empty for a task without.
        base: SHA-256 of all that is frozen, as the coordinator has it.
        base_files: SHA-256 of the files of the base's weights; empty where they are not told.
        participants: every site that is asked, in order of names.
        versions: of the software at the coordinator.
        protocol: of the messages.

    Raises:
        OfferError: naming the field that is out of range.
    """

    run: str
    began: str
    coordinator: str
    title: str
    terms: Terms
    labels: tuple[str, ...]
    base: str
    base_files: str
    participants: tuple[str, ...]
    versions: Mapping[str, str] = field(default_factory=dict)
    protocol: int = PROTOCOL

    def __post_init__(self) -> None:
        wrong = {
            "protocol": type(self.protocol) is not int or self.protocol != PROTOCOL,
            "run": not is_run_name(self.run),
            "began": not isinstance(self.began, str),
            "coordinator": not is_client_name(self.coordinator),
            "title": not isinstance(self.title, str),
            "terms": not isinstance(self.terms, Terms),
            "labels": not _texts(self.labels),
            "base": not is_digest(self.base),
            "base_files": self.base_files != "" and not is_digest(self.base_files),
            "participants": not _are_sites(self.participants),
            "versions": not _words(self.versions),
        }
        for name, is_wrong in wrong.items():
            if is_wrong:
                raise OfferError(f"offer: {name} is not what it must be")

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that is offered: what a site approves."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """As it is sent: JSON, its keys in order."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        offer = {**values, "terms": _encoded(self.terms), "labels": list(self.labels)}
        offer |= {"participants": list(self.participants), "versions": dict(self.versions)}
        return json.dumps(offer, sort_keys=True, ensure_ascii=False).encode()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The inverse of ``to_bytes``.

        Raises:
            OfferError: naming the field.
        """
        if len(data) > LARGEST:
            raise OfferError("offer: is too large for anybody to read")
        try:
            found = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise OfferError("offer: is no JSON") from error
        names = {f.name for f in fields(cls)}
        if not isinstance(found, dict) or found.keys() != names:
            raise OfferError(f"offer: has not just these fields: {', '.join(sorted(names))}")
        if found["protocol"] != PROTOCOL:
            raise OfferError("offer: protocol is another one than this version of silotune speaks")
        offer = cls(**{**found, **_decoded(found)})
        try:
            same = offer.to_bytes() == data
        except UnicodeEncodeError:
            same = False
        if not same:  # what is approved is what was read
            raise OfferError("offer: is not written as an offer is")
        return offer


def digest_of_terms(terms: Terms) -> str:
    """SHA-256 of terms as they are offered: labels, participants and base are the offer's."""
    told = json.dumps(_encoded(terms), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(told.encode()).hexdigest()


def _encoded(terms: Terms) -> dict[str, Any]:
    return {**encoded(terms, "terms"), "eval_every": terms.eval_every}


def is_admitted(name: str) -> bool:
    """Whether an offer may name a class, ``module:Class``."""
    return name.startswith(_ROOMS) and "<" not in name


def _decoded(found: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are no plain values."""
    try:
        terms = decoded(found["terms"], "offer", is_admitted)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise OfferError("offer: terms are none that this version of silotune knows") from error
    labels, participants = found["labels"], found["participants"]
    if not isinstance(labels, list) or not isinstance(participants, list):
        raise OfferError("offer: labels and participants are lists")
    return {"terms": terms, "labels": tuple(labels), "participants": tuple(participants)}


def _texts(values: object) -> bool:
    return isinstance(values, tuple) and all(isinstance(v, str) for v in values)


def _words(values: object) -> bool:
    return isinstance(values, Mapping) and all(
        isinstance(k, str) and isinstance(v, str) for k, v in values.items()
    )


def _are_sites(names: object) -> bool:
    """At least one, in order, each once and told apart from the others."""
    if not isinstance(names, tuple) or not names or not all(map(is_client_name, names)):
        return False
    return list(names) == sorted(set(names)) and case_twins(names) is None
