"""Statement: what a private run has spent and guarantees, from the ledgers as they stand."""

from __future__ import annotations

from collections.abc import Mapping

from silotune.engine import EVERY_CLIENT
from silotune.federation.federation import Federation
from silotune.privacy import LedgerEntry
from silotune.privacy.accounting.accountant import COARSE, FINE
from silotune.privacy.ledger.entry import read_ledger
from silotune.privacy.ledger.noisy_counts import by_table
from silotune.runs.facts import PrivacyStatement
from silotune.runs.folder import RunFolder

from .issue import example_level
from .issue_client_level import client_level


def ledgers(workshop: Federation, folder: RunFolder, run: str) -> dict[str, list[LedgerEntry]]:
    """Every account's charges for this run, oldest first: of each silo, or of every client."""
    places = {name: folder.site(name) for name in workshop.sizes}
    if workshop.central.private:
        places = {EVERY_CLIENT: folder.server}
    return {
        name: [e for e in read_ledger(place / "ledger.jsonl") if e.run == run]
        for name, place in places.items()
    }


def spent(
    workshop: Federation, entries: Mapping[str, list[LedgerEntry]], *, grid: float = COARSE
) -> dict[str, float]:
    """Epsilon of each account so far; empty without privacy."""
    if not workshop.private:
        return {}
    privacy = workshop.config.privacy
    delta, relation = privacy.target_delta, privacy.relation
    return {
        name: by_table((e.release, e.charge) for e in charged).epsilon(
            delta, relation=relation, grid=grid
        )
        for name, charged in entries.items()
    }


def statement(
    workshop: Federation,
    run: str,
    entries: Mapping[str, list[LedgerEntry]],
    *,
    grid: float = FINE,
) -> PrivacyStatement | None:
    """The certificate of a run; None without privacy. Its epsilons are upper bounds on any grid."""
    match workshop.config.privacy.unit:
        case "example":
            return example_level(workshop, run, entries, grid=grid)
        case "client":
            return client_level(workshop, run, entries[EVERY_CLIENT], grid=grid)
        case _:
            return None
