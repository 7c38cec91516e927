"""Statement: what a private run has spent and guarantees, from the ledgers as they stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from silotune.privacy import NoDP
from silotune.privacy.accounting.accountant import FINE
from silotune.privacy.ledger.chain import Chain
from silotune.privacy.lifetime.composition import Earlier
from silotune.runs.privacy_statement import PrivacyStatement
from silotune.terms import Agreement

from .circumstances import Circumstances
from .issue import Bound, Told, issue


def statement(
    agreement: Agreement,
    circumstances: Circumstances,
    run: str,
    chains: Mapping[str, Chain],
    *,
    grid: float = FINE,
    bound: Bound | None = None,
    elsewhere: Mapping[str, Sequence[Earlier]] | None = None,
    told: Told | None = None,
    before: PrivacyStatement | None = None,
) -> PrivacyStatement | None:
    """The certificate of a run; None without privacy. Its epsilons are upper bounds on any grid."""
    if isinstance(agreement.terms.privacy, NoDP):
        return None
    return issue(
        agreement,
        circumstances,
        run,
        chains,
        grid=grid,
        bound=bound,
        elsewhere=elsewhere,
        told=told,
        before=before,
    )
