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
from silotune.privacy.ledger.entry import COUNT, METRIC, UPDATE
from silotune.privacy.lifetime.composition import Earlier, Life, life
from silotune.runs.privacy_statement import PrivacyStatement, SiloPrivacy
from silotune.terms import Terms

from .accounts import from_lines
from .circumstances import Circumstances
from .fields import strange

RECORDED, OFF, NONE, AT_SITES = "recorded", "off", "none", "at sites"
"""Whether charges are in the silos' books for life: they are; somebody wanted none; nobody keeps
one (of whole clients); each site keeps its own, of which it says nothing."""

FIELDS = ("runs", "epsilon", "because", "earlier")
EARLIER_FIELDS = ("seeded", "charges")
CHARGE_FIELDS = ("release", "charge")
"""Of a life, of each earlier run in it, and of each of its charges; nothing else is in them."""


def mark(terms: Terms, circumstances: Circumstances) -> str:
    """Which of them a run is."""
    if terms.unit != "example":
        return NONE
    if circumstances.at_sites:
        return AT_SITES
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
    if statement.lifetime not in (marks := (RECORDED, OFF, NONE, AT_SITES)):
        yield "lifetime", f"is {statement.lifetime!r}: it must be one of {', '.join(marks)}"
    if said is None:
        return
    if statement.lifetime != RECORDED:
        yield "lifetime", "is stated, though the run is in no book"
    if wrong := list(_unreadable(said)):
        yield from (("lifetime", text) for text in wrong)
        return
    try:
        earlier = [_earlier(i, run) for i, run in enumerate(said["earlier"])]
    except ValueError as error:
        yield "lifetime", f"cannot be read: {error}"
        return
    runs, epsilon = said["runs"], said["epsilon"]
    own = from_lines(silo.charges)
    true = _life(earlier, own, statement.target_delta, relation, library=True)
    if runs != true.runs:
        yield "lifetime: runs", f"says {runs}, it lists {true.runs}"
    stated = math.inf if epsilon is None else epsilon
    if not (stated == true.epsilon or math.isclose(stated, true.epsilon, rel_tol=slack)):
        yield "lifetime: epsilon", f"says {stated:.6g}, the charges cost {true.epsilon:.6g}"
    if said["because"] != true.because:
        told = true.because or "nothing that would be said"
        yield "lifetime: because", f"says {said['because']!r}, the charges give {told}"


def _unreadable(said: Any) -> Iterator[str]:
    """Fields that are not there, that nobody looks at, or of a wrong type."""
    if not isinstance(said, Mapping) or not isinstance(said.get("earlier", []), list):
        yield "is no object with a list of earlier runs"
        return
    yield from strange(said, FIELDS)
    if type(runs := said.get("runs", 0)) is not int:
        yield f"runs is no number of runs: {runs!r}"
    if type(epsilon := said.get("epsilon")) not in (int, float, type(None)):
        yield f"epsilon is no number: {epsilon!r}"
    for number, run in enumerate(said.get("earlier", []), start=1):
        yield from _unreadable_run(f"earlier {number}", run)


def _unreadable_run(which: str, run: Any) -> Iterator[str]:
    if not isinstance(run, Mapping) or not isinstance(run.get("charges", []), list):
        yield f"{which} is no object with a list of charges"
        return
    yield from (f"{which} {text}" for text in strange(run, EARLIER_FIELDS))
    if type(run.get("seeded", False)) is not bool:
        yield f"{which}: seeded is neither true nor false"
    if not run.get("charges", True):
        yield f"{which} charged nothing, so that it is no run that counts"
    for line in run.get("charges", []):
        if not isinstance(line, Mapping):
            yield f"a charge of {which} is no object"
            continue
        yield from (f"a charge of {which} {text}" for text in strange(line, CHARGE_FIELDS))
        if (release := line.get("release", UPDATE)) not in (UPDATE, COUNT, METRIC):
            yield f"a charge of {which} is for {release!r}, which no run releases"


def _life(
    earlier: Sequence[Earlier],
    own: Account,
    delta: float,
    relation: Relation,
    *,
    library: bool = False,
) -> Life:
    priced = [(line.release, line.charge) for line in own]
    return life(earlier, priced, delta, relation, FINE, library=library)


def _earlier(number: int, run: Mapping[str, Any]) -> Earlier:
    charges = tuple((str(line["release"]), from_json(line["charge"])) for line in run["charges"])
    return Earlier(str(number), charges, bool(run["seeded"]))
