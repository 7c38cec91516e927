"""At sites: what a certificate says of who accepted which terms, and whether it adds up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from silotune.core.names import is_client_name, is_digest, is_time
from silotune.runs.privacy_statement import PrivacyStatement

from .fields import strange
from .transports import TRANSPORTS

FIELDS = ("coordinator", "transports", "offer", "terms", "sites")
SITE_FIELDS = ("num_examples", "policy", "versions", "accepted")
"""Of ``federation``, and of each site in it; nothing else is in them."""


def unreadable(federation: object) -> Iterator[str]:
    """Fields that are not there, that nobody looks at, or of a wrong type; none where it is empty.

    Args:
        federation: of a certificate.
    """
    if not isinstance(federation, Mapping):
        yield "is no object"
        return
    if not federation:
        return
    yield from strange(federation, FIELDS)
    kinds, sites = federation.get("transports"), federation.get("sites")
    if not _are_kinds(kinds):
        yield f"transports is no list of {', '.join(TRANSPORTS)}"
    if not isinstance(federation.get("coordinator"), str):
        yield "coordinator is no name"
    for name in ("offer", "terms"):
        if not _digest(federation.get(name)):
            yield f"{name} is no SHA-256"
    if not isinstance(sites, dict) or not sites:
        yield "sites is no object with a site in it"
        return
    for name, site in sites.items():
        if not isinstance(site, dict) or not is_client_name(name):
            yield f"sites: {name!r} is no site"
        else:
            yield from (f"sites: {name} {text}" for text in _unreadable_site(site))


def add_up(statement: PrivacyStatement, *, at_sites: bool) -> Iterator[tuple[str, str]]:
    """What is wrong with it: a field, and how.

    Args:
        statement: a certificate that can be read.
        at_sites: whether its grounds say that clients are sites.
    """
    federation = statement.federation
    if at_sites != bool(federation):
        yield "federation", "says who accepted the terms exactly if clients are sites"
    presumed = [
        name for name, s in statement.silos.items() if s.presumed or s.last_heard is not None
    ]
    if presumed and (not federation or statement.unit == "client"):
        yield f"silo {presumed[0]}: presumed", "is stated, though nobody is heard from afar"
    if not federation:
        return
    declared = {name: site["num_examples"] for name, site in federation["sites"].items()}
    if statement.unit == "client":
        [everybody] = statement.silos.values()
        if everybody.num_examples != len(declared):
            yield "federation: sites", f"{len(declared)} accepted, {everybody.num_examples} hidden"
        return
    accounts = {name: silo.num_examples for name, silo in statement.silos.items()}
    for name in sorted(accounts.keys() | declared.keys()):
        if accounts.get(name) != declared.get(name):
            yield (
                f"federation: {name}",
                f"has declared {declared.get(name, 'nothing')}, its account is of "
                f"{accounts.get(name, 'nothing')}",
            )


def _unreadable_site(site: Mapping[str, Any]) -> Iterator[str]:
    yield from strange(site, SITE_FIELDS)
    if type(site.get("num_examples")) is not int or site["num_examples"] < 1:
        yield "has not declared a number of records"
    if not _digest(site.get("policy")):
        yield "has a policy that is no SHA-256"
    versions = site.get("versions")
    if not isinstance(versions, dict) or not all(isinstance(v, str) for v in versions.values()):
        yield "has versions that are none"
    if not is_time(site.get("accepted")):
        yield "has accepted at no time"


def _are_kinds(kinds: object) -> bool:
    return (
        isinstance(kinds, list)
        and bool(kinds)
        and len({str(kind) for kind in kinds}) == len(kinds)
        and all(isinstance(kind, str) and kind in TRANSPORTS for kind in kinds)
    )


def _digest(text: object) -> bool:
    return isinstance(text, str) and is_digest(text)
