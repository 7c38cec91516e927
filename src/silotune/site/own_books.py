"""Own books: the certificate that a coordinator issued, held against what the site itself knows.

That is the offer which it accepted, and the ledger that it alone writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from silotune.certificate.consistency import Discrepancy
from silotune.certificate.cross_check import with_ledger
from silotune.certificate.verify import Verification, verify
from silotune.core.files import DamagedError
from silotune.federation.offer import Offer
from silotune.privacy import ClientDP, ExampleDP
from silotune.privacy.ledger.chain import Chain, read_chains
from silotune.privacy.ledger.store import LEDGER
from silotune.runs.privacy_statement import PrivacyStatement

from .home import Home


def verify_own(home: Home, site: str, run: str, certificate: Path | None = None) -> Verification:
    """Check the certificate of a run by itself, and against the offer and the ledger of a site.

    Args:
        home: of the site.
        site: its name.
        run: that has ended.
        certificate: the file; None = the one that is kept.

    Raises:
        RecordError: if there is no certificate, or something cannot be read at all.
    """
    file = certificate or home.certificate(run)
    if not file.is_file():
        raise DamagedError(
            f"{run}: no certificate has come from the coordinator; it comes when the run ends"
        )
    found, offer = verify(file), home.offer(run)
    chains = read_chains(home.run(run) / LEDGER)
    wrong = [*_strangers(chains, site), *_claims(found.statement, offer)]
    wrong += _uninvited(found.statement, offer)
    if found.statement is not None and found.silos:
        wrong += _account(found.statement, chains.get(site, Chain()), site)
    elif chains and found.statement is None:
        wrong.append(Discrepancy("unit", f"says none, {LEDGER} has charges of this site"))
    return replace(
        found,
        findings=tuple(dict.fromkeys([*found.findings, *wrong])),
        compared=(*found.compared, "the offer", LEDGER),
    )


def _strangers(chains: dict[str, Chain], site: str) -> Iterator[Discrepancy]:
    if others := sorted(chains.keys() - {site}):
        yield Discrepancy(LEDGER, f"has charges of {', '.join(others)}, which is not this site")


def _uninvited(statement: PrivacyStatement | None, offer: Offer) -> Iterator[Discrepancy]:
    """Accounts of somebody whom the offer does not name."""
    if statement is None or statement.unit == "client":  # of every client together
        return
    for name in sorted(statement.silos.keys() - set(offer.participants)):
        yield Discrepancy(f"silo {name}", "is none of the participants of the offer")


def _claims(statement: PrivacyStatement | None, offer: Offer) -> Iterator[Discrepancy]:
    """What the certificate says of the terms, against those that were accepted."""
    choice = offer.terms.privacy
    if statement is None or not isinstance(choice, ExampleDP | ClientDP):
        if statement is not None or isinstance(choice, ExampleDP | ClientDP):
            says = statement.unit if statement else "none"
            yield Discrepancy("unit", f"says {says}, the offer says {choice.unit}")
        return
    agreed = {
        "run": offer.run,
        "unit": choice.unit,
        "relation": choice.relation,
        "target_delta": choice.target_delta,
        "target_epsilon": choice.target_epsilon,
        "max_grad_norm": getattr(choice, "max_grad_norm", getattr(choice, "max_update_norm", None)),
    }
    for field, value in agreed.items():
        if (says := getattr(statement, field)) != value:
            yield Discrepancy(field, f"says {says}, the offer says {value}")


def _account(statement: PrivacyStatement, chain: Chain, site: str) -> Iterator[Discrepancy]:
    if statement.unit == "client":
        if len(chain):  # the coordinator adds the noise, and keeps the ledger of it
            yield Discrepancy("unit", f"says client, {LEDGER} has charges of this site")
    elif site not in statement.silos:
        yield Discrepancy(f"silo {site}", "has no account, though this site took part")
    else:
        yield from with_ledger(statement, site, chain, LEDGER)
