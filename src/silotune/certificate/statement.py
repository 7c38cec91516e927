"""Statement: what a private run has spent and guarantees, from the ledgers as they stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from silotune.privacy import NoDP
from silotune.privacy.accounting.accountant import COARSE, FINE
from silotune.privacy.ledger.chain import Chain
from silotune.privacy.lifetime.composition import Earlier
from silotune.runs.privacy_statement import PrivacyStatement
from silotune.terms import Agreement

from .accounts import cost
from .circumstances import Circumstances
from .issue import Bound, Told, issue


def spent(
    agreement: Agreement, run: str, chains: Mapping[str, Chain], *, grid: float = COARSE
) -> dict[str, float]:
    """Epsilon of each account so far; empty without privacy.

    Args:
        agreement: of the run.
        run: its identity.
        chains: every account's ledger.
        grid: of the privacy loss.
    """
    privacy = agreement.terms.privacy
    if isinstance(privacy, NoDP):
        return {}
    return {
        name: cost(chain.book(run).account, privacy.target_delta, privacy.relation, grid)
        for name, chain in chains.items()
    }


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
    )
