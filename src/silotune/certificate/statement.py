"""Statement: what a private run has spent and guarantees, from the ledgers as they stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from silotune.engine import EVERY_CLIENT
from silotune.privacy import LedgerEntry, NoDP
from silotune.privacy.accounting.accountant import COARSE, FINE
from silotune.privacy.ledger.entry import read_ledger
from silotune.privacy.ledger.noisy_counts import by_table
from silotune.privacy.lifetime.composition import Earlier
from silotune.runs.folder import RunFolder
from silotune.runs.privacy_statement import PrivacyStatement
from silotune.terms import Agreement

from .circumstances import Circumstances
from .issue import issue


def ledgers(agreement: Agreement, folder: RunFolder, run: str) -> dict[str, list[LedgerEntry]]:
    """Every account's charges for this run, oldest first: of each silo, or of every client."""
    places = {name: folder.site(name) for name in agreement.sizes}
    if agreement.server.private:
        places = {EVERY_CLIENT: folder.server}
    return {
        name: [e for e in read_ledger(place / "ledger.jsonl") if e.run == run]
        for name, place in places.items()
    }


def spent(
    agreement: Agreement, entries: Mapping[str, list[LedgerEntry]], *, grid: float = COARSE
) -> dict[str, float]:
    """Epsilon of each account so far; empty without privacy."""
    privacy = agreement.terms.privacy
    if isinstance(privacy, NoDP):
        return {}
    delta, relation = privacy.target_delta, privacy.relation
    return {
        name: by_table((e.release, e.charge) for e in charged).epsilon(
            delta, relation=relation, grid=grid
        )
        for name, charged in entries.items()
    }


def statement(
    agreement: Agreement,
    circumstances: Circumstances,
    run: str,
    entries: Mapping[str, list[LedgerEntry]],
    *,
    grid: float = FINE,
    elsewhere: Mapping[str, Sequence[Earlier]] | None = None,
) -> PrivacyStatement | None:
    """The certificate of a run; None without privacy. Its epsilons are upper bounds on any grid."""
    if isinstance(agreement.terms.privacy, NoDP):
        return None
    return issue(agreement, circumstances, run, entries, grid=grid, elsewhere=elsewhere)
