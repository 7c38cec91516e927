"""Readable: whether a certificate has the fields, types and kinds that all else is made from."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields
from typing import Any, get_args

from silotune.engine import EVERY_CLIENT
from silotune.privacy import Relation
from silotune.privacy.accounting.charges import typed
from silotune.runs.facts import RunFacts
from silotune.runs.privacy_statement import FORMAT, PrivacyStatement, SiloPrivacy

from .at_sites import unreadable
from .consistency import Discrepancy
from .fields import beyond
from .grounds import Grounds
from .issue import NOISE_PACKAGES, NOTHING_CLAIMED
from .sentences import WORDINGS

_KNOWN: Mapping[str, tuple[str, ...]] = {
    "mechanism": ("sampling", "noise", "source", "clipping"),
    "overall": ("epsilon", "rule", "holds_if"),
    "recognition": ("false_alarms", "at_most"),
    "versions": ("silotune", *NOISE_PACKAGES),
}
"""Objects of a certificate, and their fields; the others are looked at field by field."""

OBJECTS = (
    *("mechanism", "overall", "recognition", "coupling", "versions", "grounds", "files"),
    "federation",
)


def readable(statement: PrivacyStatement) -> Iterator[Discrepancy]:
    """What keeps everything else from being computed: an old format, fields of a wrong type."""
    if statement.format != FORMAT:
        yield Discrepancy(
            "format",
            f"is {statement.format}, and only {FORMAT} is bound to ledger and adapter; verify it "
            "with the silotune that made it",
        )
        return
    yield from _types("certificate", statement)
    for name, silo in statement.silos.items():
        yield from _types(f"silo {name}", silo)
        for field in ("charges", "presumed"):
            if not isinstance(getattr(silo, field), list):
                yield Discrepancy(f"silo {name}: {field}", "are no list")
        if not (silo.last_heard is None or type(silo.last_heard) is int):
            yield Discrepancy(f"silo {name}: last_heard", f"is no round: {silo.last_heard!r}")
    for field in OBJECTS:
        if not isinstance(getattr(statement, field), dict):
            yield Discrepancy(field, "is no object")
            return
    yield from (Discrepancy("federation", text) for text in unreadable(statement.federation))
    for field in ("released", "not_covered", "not_claimed", "transport"):
        if not isinstance(getattr(statement, field), list):
            yield Discrepancy(field, "is no list")
    yield from _numbers(statement)
    if statement.relation not in get_args(Relation):
        yield Discrepancy("relation", f"is none of {', '.join(get_args(Relation))}")
    if not statement.silos:
        yield Discrepancy("silos", "there is no account")
    try:
        Grounds.parse(statement.grounds)
    except ValueError as error:
        yield Discrepancy("grounds", str(error))
    yield from _kinds(statement)


def unaccounted(data: Mapping[str, Any]) -> Iterator[Discrepancy]:
    """Fields of the file that nobody looks at, and that may say anything.

    Args:
        data: the file's JSON, from which a certificate was read.
    """
    if data.get("unit") == "none":
        yield from _beyond("certificate", data, {"version", *NOTHING_CLAIMED})
        return
    if data.get("format") != FORMAT:
        return  # ``readable`` has said why
    yield from _beyond("certificate", data, {"version", *_names(PrivacyStatement)})
    for field, known in _KNOWN.items():
        yield from _beyond(field, data.get(field), known)
    for name, silo in data["silos"].items():
        yield from _beyond(f"silo {name}", silo, _names(SiloPrivacy))
        for field in ("charges", "presumed"):
            for line in silo.get(field) or ():
                yield from _beyond(f"silo {name}: {field}", line, ("release", "times", "charge"))


def unaccounted_facts(data: Mapping[str, Any]) -> Iterator[Discrepancy]:
    """The same of ``run.json``."""
    yield from _beyond("run.json", data, {"version", *_names(RunFacts)})


def _beyond(where: str, part: object, known: Collection[str]) -> Iterator[Discrepancy]:
    if isinstance(part, Mapping):
        yield from (Discrepancy(where, text) for text in beyond(part, known))


def _names(cls: type[Any]) -> set[str]:
    return {field.name for field in fields(cls)}


def _types(where: str, part: PrivacyStatement | SiloPrivacy) -> Iterator[Discrepancy]:
    try:
        typed(type(part), vars(part))
    except ValueError as error:
        yield Discrepancy(where, str(error))


def _numbers(statement: PrivacyStatement) -> Iterator[Discrepancy]:
    """Fields that may be null, or lie deeper."""
    numbers = {f"silo {n}": silo.epsilon_if_secret for n, silo in statement.silos.items()}
    numbers |= {"target_epsilon": statement.target_epsilon, **statement.recognition}
    numbers |= {f"coupling: {name}": value for name, value in statement.coupling.items()}
    for where, number in {**numbers, "overall": statement.overall.get("epsilon", "")}.items():
        if number is not None and type(number) not in (int, float):
            yield Discrepancy(where, f"is no number: {number!r}")


def _kinds(statement: PrivacyStatement) -> Iterator[Discrepancy]:
    """Kinds that sentences are made from."""
    words = WORDINGS.get(statement.unit)
    if words is None:
        yield Discrepancy("unit", f"is none of {', '.join(WORDINGS)}")
        return
    if (statement.unit == "client") != (list(statement.silos) == [EVERY_CLIENT]):
        yield Discrepancy(
            "unit",
            f"is {statement.unit}, but the accounts are those of {', '.join(statement.silos)}: "
            f"{EVERY_CLIENT} has one account where clients are hidden, and else each silo",
        )
    known = {"sampling": words.sampling, "noise": words.noise}
    for field, kinds in known.items():
        kind = statement.mechanism.get(field)
        if not isinstance(kind, str) or kind not in kinds:
            yield Discrepancy(
                "mechanism", f"{field} is {kind!r}, which unit {statement.unit} lacks"
            )
