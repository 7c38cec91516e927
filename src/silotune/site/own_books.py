"""Own books: the certificate that a coordinator issued, held against what the site itself knows.

That is the offer which it accepted, and the ledger that it alone writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from silotune.certificate.at_sites import SITE_FIELDS, unreadable
from silotune.certificate.consistency import Discrepancy, whole
from silotune.certificate.cross_check import same, totals, with_ledger
from silotune.certificate.verify import Verification, verify
from silotune.core.files import DamagedError, read_lines
from silotune.federation.offer import Offer, digest_of_terms
from silotune.privacy import ClientDP, ExampleDP
from silotune.privacy.accounting.charges import close
from silotune.privacy.ledger.chain import Chain, read_chains
from silotune.privacy.ledger.store import LEDGER
from silotune.runs.privacy_statement import PrivacyStatement

from .home import SAID, Home


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
    file, offer = certificate or home.certificate(run), home.offer(run)
    if not file.is_file():
        raise DamagedError(
            f"{run}: no certificate has come from the coordinator; it comes when the run ends"
            if offer.terms.private
            else f"{run}: keeps nothing private (unit: none), so that no certificate comes of it"
        )
    found = verify(file)
    chains = read_chains(home.run(run) / LEDGER)
    wrong = [*_strangers(chains, site), *_claims(found.statement, offer)]
    wrong += _uninvited(found.statement, offer)
    if found.statement is not None and not list(unreadable(found.statement.federation)):
        wrong += _accepted(found.statement, offer, site, home.run(run) / SAID)
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


def _accepted(
    statement: PrivacyStatement, offer: Offer, site: str, file: Path
) -> Iterator[Discrepancy]:
    """Who accepted what, as far as the site knows: the offer, and what it said itself."""
    told = statement.federation
    if not told:
        yield Discrepancy("federation", "does not say who accepted what")
        return
    yield from same("federation: coordinator", told["coordinator"], offer.coordinator, "the offer")
    yield from same("federation: offer", told["offer"], offer.digest, "the offer")
    yield from same("federation: terms", told["terms"], digest_of_terms(offer.terms), "the offer")
    for name in sorted(told["sites"].keys() - set(offer.participants)):
        yield Discrepancy(f"federation: {name}", "is none of the participants of the offer")
    said = [{field: line.get(field) for field in SITE_FIELDS} for line in read_lines(file)]
    if told["sites"].get(site) not in said:
        yield Discrepancy(f"federation: {site}", f"says something else than {file.name}")


def _account(statement: PrivacyStatement, chain: Chain, site: str) -> Iterator[Discrepancy]:
    if statement.unit == "client":
        if len(chain):  # the coordinator adds the noise, and keeps the ledger of it
            yield Discrepancy("unit", f"says client, {LEDGER} has charges of this site")
    elif site not in statement.silos:
        yield Discrepancy(f"silo {site}", "has no account, though this site took part")
    elif statement.silos[site].presumed and len(chain) > statement.silos[site].lines:
        yield from _presumed(statement, site, chain)
    else:
        yield from with_ledger(statement, site, chain, LEDGER)


def _presumed(statement: PrivacyStatement, site: str, chain: Chain) -> Iterator[Discrepancy]:
    """Whether all that the site charged is counted, where it has not told all of it."""
    silo = statement.silos[site]
    if not chain.holds(silo.lines, silo.head):
        yield Discrepancy(f"silo {site}: head", f"is not that of a line of {LEDGER}")
    counted = totals(whole(silo)).items()
    for (release, charge), (times, steps) in totals(chain.book(statement.run).account).items():
        alike = [total for (name, one), total in counted if name == release and close(one, charge)]
        most = sum(n for n, _ in alike)
        if times > most or steps > sum(n for _, n in alike):
            yield Discrepancy(
                f"silo {site}: presumed",
                f"{release}: {LEDGER} has {times} charges, {most} are told or presumed",
            )
