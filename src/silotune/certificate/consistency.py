"""Adding up: whether a certificate agrees with itself. Nothing but its own numbers is used.

Every figure is computed again from the charges, by dp-accounting itself. Comparisons are written so
that a number that is no number (NaN) fails them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from silotune.core.packages import installed
from silotune.core.units import number_text
from silotune.privacy import AnyCharge, Charge, CorrelatedCharge, Relation, TruncatedCharge
from silotune.privacy.accounting.accountant import FINE
from silotune.privacy.accounting.discrete import is_discrete
from silotune.privacy.ledger.book import Account, ChargeLine
from silotune.privacy.ledger.entry import COUNT, METRIC, UPDATE
from silotune.runs.privacy_statement import PrivacyStatement, SiloPrivacy

from . import at_sites, coupling, lifetime
from .accounts import (
    cost,
    cost_rdp,
    cost_together,
    from_lines,
    membership_bound,
    sampling_rate,
    together,
)
from .grounds import Grounds
from .sentences import Said, rule, sentences

SAME = 1e-6
"""Relative difference of figures that machines may have."""

OTHER_LIBRARY = 1e-3
"""The same, where the library that counts is of another version."""

KINDS: Mapping[str, type[AnyCharge]] = {
    "poisson": Charge,
    "truncated-poisson": TruncatedCharge,
    "rotation": CorrelatedCharge,
}
"""Sampling -> what it charges."""


@dataclass(frozen=True)
class Discrepancy:
    """Something that does not add up.

    Attributes:
        where: account and field, as the certificate names them.
        text: what is wrong.
    """

    where: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Recomputed:
    """Of one account.

    Attributes:
        epsilon: on the fine grid; what secret noise would give.
        epsilon_rdp: by Renyi divergences.
    """

    epsilon: float
    epsilon_rdp: float


def recompute(statement: PrivacyStatement) -> dict[str, Recomputed]:
    """The figures of every account whose charges can be read and have a proved price.

    Args:
        statement: a certificate that is ``readable``.
    """
    figures, counted = {}, by_library(statement)
    for name, silo in statement.silos.items():
        with suppress(ValueError):  # ``within`` says why
            figures[name] = _recompute(statement, whole(silo), library=name in counted)
    return figures


MOST_BY_LIBRARY = 16
"""Accounts of unlike charges that dp-accounting counts itself, which takes it up to a second each.
Of more it counts those that have paid most and others between them and those that have paid least;
the rest is counted as ``privacy_loss`` does, if that has come to the same at these."""


def by_library(statement: PrivacyStatement) -> frozenset[str]:
    """The accounts whose figures dp-accounting counts itself.

    Args:
        statement: a certificate that is ``readable``.
    """
    ours: dict[str, float] = {}
    for name, silo in statement.silos.items():
        with suppress(ValueError):
            ours[name] = _epsilon(statement, whole(silo), library=False)
    ranked = sorted(set(ours.values()), reverse=True)
    if len(ranked) <= MOST_BY_LIBRARY:
        return frozenset(statement.silos)
    last = len(ranked) - 1
    spread = {ranked[i * last // (MOST_BY_LIBRARY - 1)] for i in range(MOST_BY_LIBRARY)}
    chosen = {name for name, figure in ours.items() if figure in spread}
    counted = ((n, _epsilon(statement, whole(statement.silos[n]), library=True)) for n in chosen)
    agree = all(math.isclose(figure, ours[n], rel_tol=SAME) for n, figure in counted)
    return frozenset(chosen if agree else statement.silos)


def whole(silo: SiloPrivacy) -> Account:
    """What an account is charged: what was told, and what is presumed.

    Raises:
        ValueError: if a charge cannot be read.
    """
    return together(from_lines(silo.charges), from_lines(silo.presumed))


def within(statement: PrivacyStatement) -> Iterator[Discrepancy]:
    """Everything in a readable certificate that does not follow from the rest of it."""
    yield from _claims(statement)
    yield from _sentences(statement)
    for text in coupling.measurable(statement):
        yield Discrepancy("coupling", text)
    for field, text in at_sites.add_up(
        statement, at_sites=Grounds.parse(statement.grounds).at_sites
    ):
        yield Discrepancy(field, text)
    counted = by_library(statement)
    for name, silo in statement.silos.items():
        yield from _account(statement, f"silo {name}", silo, library=name in counted)
    yield from _overall(statement)


def tolerance(statement: PrivacyStatement) -> float:
    """Relative difference that two honest computations may have."""
    same = statement.versions.get("dp-accounting") == installed("dp-accounting")
    return SAME if same else OTHER_LIBRARY


def _sentences(statement: PrivacyStatement) -> Iterator[Discrepancy]:
    """Every sentence is made again, and must be the one that stands there."""
    said = Said(
        unit=statement.unit,
        relation=statement.relation,
        mechanism=statement.mechanism,
        grid=statement.grid,
        counter=str(statement.versions.get("dp-accounting")),
        finite=math.isfinite(statement.largest_if_secret()),
        coupling=statement.coupling,
        transports=statement.federation.get("transports", ()),
        grounds=Grounds.parse(statement.grounds),
    )
    expected = sentences(said)
    stated = {**vars(statement), "holds_if": statement.overall.get("holds_if")}
    for field, words in expected.items():
        says = list(stated[field]) if isinstance(words, list) else stated[field]
        if says != words:
            where = "overall: holds_if" if field == "holds_if" else field
            yield Discrepancy(where, _difference(says, words))
    if statement.overall.get("rule") != rule(said):
        yield Discrepancy(
            "overall: rule", f"is {statement.overall.get('rule')!r}, its grounds give {rule(said)}"
        )


def _difference(says: object, words: str | Sequence[str]) -> str:
    if not isinstance(says, list) or isinstance(words, str):
        return f"is not what follows from the numbers, which is: {words or 'nothing'}"
    lacking = [text for text in words if text not in says]
    beyond = [text for text in says if text not in words]
    parts = [
        f"lacks: {'; '.join(lacking)}" if lacking else "",
        f"has what does not follow: {'; '.join(map(str, beyond))}" if beyond else "",
    ]
    return ". ".join(part for part in parts if part) or "is in another order than it is made in"


def _claims(statement: PrivacyStatement) -> Iterator[Discrepancy]:
    """Whether anything may be claimed, and nothing is where it may not."""
    source, seeded = statement.mechanism.get("source"), statement.mechanism.get("source") == "seed"
    if source not in ("seed", "operating system"):
        yield Discrepancy("mechanism", f"noise is from {source!r}: seed or operating system")
    if seeded and statement.private:
        yield Discrepancy("private", "says true, but the noise came from the seed")
    if statement.private == bool(statement.not_private_because):
        yield Discrepancy("private", "is true exactly if there is no not_private_because")
    claimed = {f"silo {n}": silo.epsilon for n, silo in statement.silos.items()}
    claimed["overall"] = statement.overall.get("epsilon", math.nan)
    for where, figure in claimed.items():
        if statement.private and not math.isfinite(figure):
            yield Discrepancy(f"{where}: epsilon", "is not finite, and yet private is true")
        if seeded and figure != math.inf:
            yield Discrepancy(
                f"{where}: epsilon", "is claimed, though the noise came from the seed: must be null"
            )
    if not statement.private and statement.recognition:
        yield Discrepancy("recognition", "is claimed, though nothing is private")


def _account(
    statement: PrivacyStatement, where: str, silo: SiloPrivacy, *, library: bool
) -> Iterator[Discrepancy]:
    try:
        told, lines = from_lines(silo.charges), whole(silo)
    except ValueError as error:
        yield Discrepancy(f"{where}: charges", str(error))
        return
    yield from _counts(where, silo, [line for line in told if line.release == UPDATE])
    yield from _releases(statement, where, lines)
    for line in lines:
        if line.release == UPDATE:
            yield from _kind(statement, where, silo, line.charge)
    if silo.delta != statement.target_delta:
        yield Discrepancy(
            f"{where}: delta", f"{silo.delta} is not target_delta {statement.target_delta}"
        )
    if not silo.delta * silo.num_examples < 1.0:
        yield Discrepancy(
            f"{where}: delta",
            f"{number_text(silo.delta)} is not below 1 / num_examples = 1 / {silo.num_examples}: "
            "that would allow the publication of a whole record",
        )
    try:
        true = _recompute(statement, lines, library=library)
        grid = max(statement.grid, FINE)
        upper = _epsilon(statement, lines, grid, library=library)
    except ValueError as error:
        yield Discrepancy(f"{where}: charges", f"have no proved price: {error}")
        return
    yield from _figures(statement, where, silo, true, upper)
    slack = 10 * tolerance(statement)
    for field, text in lifetime.add_up(statement, silo, _relation(statement), slack):
        yield Discrepancy(f"{where}: {field}", text)


def _counts(where: str, silo: SiloPrivacy, updates: Sequence[ChargeLine]) -> Iterator[Discrepancy]:
    steps = sum(line.charge.steps for line in updates)
    if steps != silo.steps:
        yield Discrepancy(f"{where}: steps", f"says {silo.steps}, its charges come to {steps}")
    times = sum(line.times for line in updates)
    if not min(1, times) <= silo.rounds <= times:
        yield Discrepancy(
            f"{where}: rounds", f"says {silo.rounds}, but its updates were charged {times} times"
        )


def _releases(
    statement: PrivacyStatement, where: str, lines: Sequence[ChargeLine]
) -> Iterator[Discrepancy]:
    """Whether what is charged is what is said to be released."""
    grounds = Grounds.parse(statement.grounds)
    charged = {line.release for line in lines}
    said = {UPDATE, *([COUNT] if grounds.count else []), *([METRIC] if grounds.metric else [])}
    for release in sorted(charged - said):
        yield Discrepancy(f"{where}: charges", f"{release} is charged, and not said to be released")
    if grounds.count and charged and COUNT not in charged:
        yield Discrepancy(f"{where}: charges", "count is said to be released, and not charged")


def _kind(
    statement: PrivacyStatement, where: str, silo: SiloPrivacy, charge: AnyCharge
) -> Iterator[Discrepancy]:
    """Whether a charge is what the mechanism charges, with the numbers that are stated."""
    kind = KINDS.get(statement.mechanism.get("sampling", ""))
    discrete = statement.mechanism.get("noise") == "discrete"
    if type(charge) is not kind or is_discrete(charge) != discrete:
        yield Discrepancy(
            f"{where}: charges",
            f"{type(charge).__name__} is not the charge of sampling "
            f"{statement.mechanism.get('sampling')} with noise {statement.mechanism.get('noise')}",
        )
    stated = {
        "noise_multiplier": (silo.noise_multiplier, charge.noise_multiplier),
        "sampling_rate": (silo.sampling_rate, sampling_rate(charge)),
    }
    if statement.unit == "client" and statement.mechanism.get("sampling") == "poisson":
        everybody = Grounds.parse(statement.grounds).everybody
        if everybody != (sampling_rate(charge) == 1.0):
            yield Discrepancy(
                "grounds", f"everybody is {everybody}, charged is a rate of {sampling_rate(charge)}"
            )
    for field, (says, charged) in stated.items():
        if not math.isclose(says, charged, rel_tol=SAME):  # a site may compute the last digits so
            yield Discrepancy(
                f"{where}: {field}", f"says {says:.8g}, it was charged for {charged:.8g}"
            )
    if isinstance(charge, TruncatedCharge) and silo.num_examples != charge.num_examples:
        yield Discrepancy(
            f"{where}: num_examples",
            f"says {silo.num_examples}, it was charged for {charge.num_examples}",
        )


def _figures(
    statement: PrivacyStatement, where: str, silo: SiloPrivacy, true: Recomputed, upper: float
) -> Iterator[Discrepancy]:
    seeded = statement.mechanism.get("source") == "seed"
    stated, field = silo.epsilon, "epsilon"
    if seeded:
        if_secret = silo.epsilon_if_secret
        stated, field = (math.inf if if_secret is None else if_secret), "epsilon_if_secret"
    elif silo.epsilon_if_secret is not None:
        yield Discrepancy(f"{where}: epsilon_if_secret", "is stated, though the noise is a secret")
    slack = tolerance(statement)
    low, high = true.epsilon * (1 - slack), upper * (1 + slack)
    if not low <= stated <= high:
        direction = "too low" if stated < low else "not what they cost"
        yield Discrepancy(
            f"{where}: {field}",
            f"says {stated:.6g}, its charges cost {true.epsilon:.6g}: {direction}",
        )
    budget = statement.target_epsilon
    if statement.federation and statement.unit == "example":
        budget = None  # each site keeps to its own, and nobody else can know whether it did
    if budget is not None and not true.epsilon <= budget * (1 + slack):
        yield Discrepancy(
            f"{where}: {field}",
            f"its charges cost {true.epsilon:.6g}, more than the budget of {budget:g}",
        )
    rdp = math.inf if seeded else true.epsilon_rdp
    if not math.isclose(silo.epsilon_rdp, rdp, rel_tol=slack):
        yield Discrepancy(
            f"{where}: epsilon_rdp", f"says {silo.epsilon_rdp:.6g}, its charges give {rdp:.6g}"
        )
    if not true.epsilon_rdp >= low:
        yield Discrepancy(
            f"{where}: epsilon_rdp",
            f"{true.epsilon_rdp:.6g} is below epsilon {true.epsilon:.6g}, which cannot be: one of "
            "the accountants is wrong",
        )


def _overall(statement: PrivacyStatement) -> Iterator[Discrepancy]:
    """The figures of all silos together."""
    stated, by = statement.overall.get("epsilon", math.nan), statement.overall.get("rule")
    largest = max((silo.epsilon for silo in statement.silos.values()), default=0.0)
    if by == "maximum" and not math.isclose(stated, largest, rel_tol=SAME):
        yield Discrepancy(
            "overall: epsilon", f"says {stated:.6g}, the largest of the accounts is {largest:.6g}"
        )
    try:
        accounts = [whole(silo) for silo in statement.silos.values()]
        if by == "composition" and statement.private:
            yield from _composition(statement, accounts, stated)
        if statement.recognition:
            yield from _recognition(statement, accounts)
    except ValueError:
        return  # ``_account`` has statement why


def _composition(
    statement: PrivacyStatement, accounts: Sequence[Account], stated: float
) -> Iterator[Discrepancy]:
    slack = tolerance(statement)
    grids = (FINE, max(statement.grid, FINE))
    low, high = (
        cost_together(accounts, statement.target_delta, _relation(statement), grid)
        for grid in grids
    )
    if not low * (1 - slack) <= stated <= high * (1 + slack):
        yield Discrepancy(
            "overall: epsilon", f"says {stated:.6g}, the accounts compose to {low:.6g}"
        )


def _recognition(statement: PrivacyStatement, accounts: Sequence[Account]) -> Iterator[Discrepancy]:
    true = membership_bound(accounts, _relation(statement), library=True)
    for field, value in true.items():
        stated = statement.recognition.get(field, math.nan)
        if not math.isclose(stated, value, rel_tol=10 * tolerance(statement)):
            yield Discrepancy(f"recognition: {field}", f"says {stated:.6g}, it is {value:.6g}")


def _recompute(statement: PrivacyStatement, account: Account, *, library: bool) -> Recomputed:
    delta, relation = statement.target_delta, _relation(statement)
    return Recomputed(
        epsilon=_epsilon(statement, account, library=library),
        epsilon_rdp=cost_rdp(account, delta, relation),
    )


def _epsilon(
    statement: PrivacyStatement, account: Account, grid: float = FINE, *, library: bool
) -> float:
    return cost(account, statement.target_delta, _relation(statement), grid, library=library)


def _relation(statement: PrivacyStatement) -> Relation:
    return statement.relation  # type: ignore[return-value]  # ``_types`` has looked at it
