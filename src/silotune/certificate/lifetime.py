"""Lifetime: what a certificate says of other runs on a silo's records, and whether it adds up.

Which runs are counted follows from public facts: the declared place of the records, and names. A
silo's book knows more (which records are the same), but whether two runs share a record is itself
something that no epsilon covers, so that it is told to the silo alone (``silotune privacy spent``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from silotune.privacy import Relation
from silotune.privacy.accounting.accountant import FINE
from silotune.privacy.accounting.charges import from_json, to_json
from silotune.privacy.ledger.book import Account
from silotune.privacy.lifetime.composition import Earlier, Life, life
from silotune.runs.privacy_statement import PrivacyStatement, SiloPrivacy
from silotune.terms import Terms

from .accounts import from_lines
from .circumstances import Circumstances

RECORDED, OFF, NONE = "recorded", "off", "none"
"""Whether charges are in the silos' books for life: they are; somebody wanted none; nobody keeps
one (of whole clients)."""


def mark(terms: Terms, circumstances: Circumstances) -> str:
    """Which of them a run is."""
    if terms.unit != "example":
        return NONE
    return RECORDED if circumstances.recorded else OFF


def stated(
    earlier: Sequence[Earlier], own: Account, delta: float, relation: Relation
) -> dict[str, Any]:
    """What an account says of its life.

    Args:
        earlier: the other runs of the book that count.
        own: the charges of this run.
        delta: over all runs.
        relation: between neighbouring data sets.
    """
    found = _life(earlier, own, delta, relation)
    return {
        "runs": found.runs,
        "epsilon": found.epsilon,
        "because": found.because,
        "earlier": [
            {
                "seeded": run.seeded,
                "charges": [{"release": r, "charge": to_json(c)} for r, c in run.charges],
            }
            for run in earlier
        ],
    }


def lacking(statement: PrivacyStatement) -> list[str]:
    """Accounts that say nothing of their life, as they must when a run that claims is finished."""
    if not statement.private or statement.lifetime != RECORDED:
        return []
    return [name for name, silo in statement.silos.items() if silo.lifetime is None]


def add_up(
    statement: PrivacyStatement, silo: SiloPrivacy, relation: Relation, slack: float
) -> Iterator[tuple[str, str]]:
    """What is wrong with it: a field, and how.

    Args:
        statement: the certificate, whose charges can be read.
        silo: one of its accounts.
        relation: of the certificate.
        slack: relative difference that two honest computations may have.
    """
    said = silo.lifetime
    if statement.lifetime not in (RECORDED, OFF, NONE):
        yield "lifetime", f"is {statement.lifetime!r}: {RECORDED}, {OFF} or {NONE}"
    if said is None:
        return
    if statement.lifetime != RECORDED:
        yield "lifetime", "is stated, though the run is in no book"
    try:
        earlier = [_earlier(i, run) for i, run in enumerate(said["earlier"])]
        runs, epsilon = said["runs"], said["epsilon"]
    except (ValueError, KeyError, TypeError) as error:
        yield "lifetime", f"cannot be read: {error}"
        return
    true = _life(earlier, from_lines(silo.charges), statement.target_delta, relation)
    if runs != true.runs:
        yield "lifetime: runs", f"says {runs}, it lists {true.runs}"
    stated = math.inf if epsilon is None else epsilon
    if not (stated == true.epsilon or math.isclose(stated, true.epsilon, rel_tol=slack)):
        yield "lifetime: epsilon", f"says {stated:.6g}, the charges cost {true.epsilon:.6g}"


def _life(earlier: Sequence[Earlier], own: Account, delta: float, relation: Relation) -> Life:
    priced = [(line.release, line.charge) for line in own]
    return life(earlier, priced, delta, relation, FINE)


def _earlier(number: int, run: Mapping[str, Any]) -> Earlier:
    charges = tuple((str(line["release"]), from_json(line["charge"])) for line in run["charges"])
    return Earlier(str(number), charges, bool(run["seeded"]))
