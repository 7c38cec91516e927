"""Whether a certificate says what the coordinator has written down of its sites."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from silotune.core.files import RecordError, read_json
from silotune.privacy.ledger.chain import Chain, read_chains
from silotune.privacy.ledger.entry import COUNT, METRIC, UPDATE
from silotune.runs.folder import RunFolder
from silotune.runs.privacy_statement import PrivacyStatement
from silotune.runs.unheard import Hearing, read_hearings

from .accounts import from_lines, presumed_times
from .at_sites import FIELDS, SITE_FIELDS
from .consistency import Discrepancy
from .cross_check import same
from .grounds import Grounds


def with_sites(
    statement: PrivacyStatement, folder: RunFolder
) -> Iterator[tuple[str, list[Discrepancy]]]:
    """What the coordinator wrote down of its sites, and what does not agree with it."""
    if not statement.federation:
        return
    yield folder.sites_told.name, list(_accepted(statement, folder.sites_told))
    if statement.files and statement.unit == "example":
        yield folder.unheard.name, list(_heard(statement, folder))


def _accepted(statement: PrivacyStatement, file: Path) -> Iterator[Discrepancy]:
    try:
        told = read_json(file)
        sites = {n: {f: s.get(f) for f in SITE_FIELDS} for n, s in told.get("sites", {}).items()}
    except (RecordError, AttributeError) as error:
        yield Discrepancy(file.name, f"cannot be read: {error}")
        return
    for field in FIELDS:
        there = sites if field == "sites" else told.get(field)
        yield from same(f"federation: {field}", statement.federation[field], there, file.name)


def _heard(statement: PrivacyStatement, folder: RunFolder) -> Iterator[Discrepancy]:
    """Orders that may have been charged for, and are not counted; or are, and were not sent."""
    file = folder.unheard.name
    try:
        hearings, told = read_hearings(folder.unheard), read_chains(folder.ledger)
        presumed = {name: from_lines(silo.presumed) for name, silo in statement.silos.items()}
    except (RecordError, ValueError) as error:
        yield Discrepancy(file, f"cannot be compared: {error}")
        return
    charged = Grounds.parse(statement.grounds)
    released = [UPDATE, *[COUNT] * charged.count, *[METRIC] * charged.metric]
    for name, silo in statement.silos.items():
        hearing, book = hearings.get(name, Hearing()), told.get(name, Chain()).book(statement.run)
        yield from same(f"silo {name}: last_heard", silo.last_heard, hearing.last_heard, file)
        times = {line.release: line.times for line in presumed[name]}
        due = presumed_times(hearing, book, released)
        yield from same(f"silo {name}: presumed", times, due, file)
