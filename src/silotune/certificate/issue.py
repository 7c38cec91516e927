"""Certificate: what a run under privacy guarantees, from its ledgers.

Everything that a checker needs is in it as numbers; what it means is in it as sentences. Where
noise came from a seed no epsilon is finite: the figures stand beside, as what secret noise would
have given. Under example-level privacy every silo has an account; under client-level privacy there
is one, that of every client: all are charged alike, whether they were asked or not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from silotune.core.packages import installed
from silotune.engine import EVERY_CLIENT
from silotune.engine.client_releases import prices_of
from silotune.privacy import AnyCharge, ClientDP, ExampleDP
from silotune.privacy.accounting.accountant import FINE
from silotune.privacy.ledger.book import Account
from silotune.privacy.ledger.chain import Chain
from silotune.privacy.lifetime.composition import Earlier
from silotune.runs.privacy_statement import FORMAT, PrivacyStatement, SiloPrivacy
from silotune.runs.unheard import Hearing
from silotune.terms import Agreement, Terms
from silotune.version import __version__

from .accounts import (
    cost,
    cost_rdp,
    cost_together,
    membership_bound,
    presumed,
    sampling_rate,
    to_lines,
    together,
)
from .circumstances import Circumstances
from .grounds import grounds
from .guarantee import NO_PRIVACY, NOT_PRIVATE, SEEDED
from .lifetime import RECORDED, mark, stated
from .sentences import Said, rule, sentences

NOTHING_CLAIMED = {"unit": "none", "private": False, "not_private_because": NO_PRIVACY}
"""The certificate of a run without privacy."""

LIBRARY = "dp-accounting"
"""What counts."""

AGREE = 1e-6
"""Relative difference of dp-accounting's own figure and ours that is rounding."""

NOISE_PACKAGES = (LIBRARY, "torch", "numpy", "cryptography")
"""Whose versions decide noise and figures."""


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What a certificate is bound to, by digest.

    Attributes:
        files: of the run's folder, SHA-256 by path; empty while the run goes on.
        facts: SHA-256 of what decides in ``run.json``.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    facts: str = ""


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a coordinator knows of its sites.

    Attributes:
        federation: who accepted what, as the certificate has it.
        hearings: of sites that were asked for something: which orders may have been charged for.
    """

    federation: Mapping[str, Any]
    hearings: Mapping[str, Hearing]


def issue(
    agreement: Agreement,
    circumstances: Circumstances,
    run: str,
    chains: Mapping[str, Chain],
    *,
    grid: float,
    bound: Bound | None = None,
    elsewhere: Mapping[str, Sequence[Earlier]] | None = None,
    told: Told | None = None,
    before: PrivacyStatement | None = None,
) -> PrivacyStatement:
    """The certificate of a run under privacy. Its epsilons are upper bounds on any grid.

    Args:
        agreement: of the run.
        circumstances: how it was made.
        run: its identity.
        chains: the ledger of every account: each silo's, or that of every client.
        grid: of the privacy loss; only on the fine one it says what an attack can reach.
        bound: what else it is of.
        elsewhere: of each silo that keeps a book, the other runs in it that count.
        told: of sites; None in a simulation.
        before: what this process issued last for the same agreement and run. In a simulation that
            goes on, what it says of accounts that have charged nothing since is taken over; orders
            to sites may have been charged for, so that these are accounted for anew.
    """
    terms, privacy = agreement.terms, agreement.terms.hiding
    bound = bound or Bound()
    sizes = units(agreement)
    federation = dict(told.federation) if told else {}
    hearings = told.hearings if told and terms.unit == "example" else {}
    presumptions = {
        name: presumed(hearing, chains[name].book(run), _prices(agreement, name))
        for name, hearing in hearings.items()
    }
    known = before.silos if before and told is None and before.grid == grid > FINE else {}
    accounts = {
        name: _unmoved(known, name, chains[name])
        or _account(
            terms,
            size,
            agreement.price(name),
            chains[name],
            run,
            presumptions.get(name, ()),
            grid=grid,
        )
        for name, size in sizes.items()
    }
    accounts |= {
        name: replace(accounts[name], last_heard=hearing.last_heard)
        for name, hearing in hearings.items()
    }
    said = Said(
        unit=terms.unit,
        relation=privacy.relation,
        mechanism=mechanism(terms),
        grid=grid,
        counter=installed(LIBRARY),
        finite=all(math.isfinite(_figure(account)) for account in accounts.values()),
        coupling=_coupling(agreement),
        transports=federation.get("transports", ()),
        grounds=grounds(terms, circumstances),
    )
    words = sentences(said)
    holds_if, private = words.pop("holds_if"), not words["not_private_because"]
    certified, composed = private and grid <= FINE, rule(said) == "composition"
    charges = [
        together(chains[name].book(run).account, presumptions.get(name, ()))
        for name in (sizes if grid <= FINE or composed else ())
    ]
    if grid <= FINE:
        accounts = _counted(accounts, dict(zip(sizes, charges, strict=True)), privacy, grid)
    if certified and mark(terms, circumstances) == RECORDED:
        accounts = {
            name: _with_life(account, own, (elsewhere or {}).get(name), privacy)
            for (name, account), own in zip(accounts.items(), charges, strict=True)
        }
    overall = max(account.epsilon for account in accounts.values())
    if composed:
        overall = cost_together(charges, privacy.target_delta, privacy.relation, grid)
    return PrivacyStatement(
        format=FORMAT,
        run=run,
        private=private,
        unit=said.unit,
        relation=said.relation,
        mechanism=said.mechanism,
        grid=grid,
        max_grad_norm=norm(privacy),
        target_epsilon=privacy.target_epsilon,
        target_delta=privacy.target_delta,
        federation=federation,
        silos=accounts,
        overall={"epsilon": overall, "rule": rule(said), "holds_if": holds_if},
        recognition=membership_bound(charges, privacy.relation) if certified else {},
        coupling=said.coupling,
        lifetime=mark(terms, circumstances),
        versions=versions(),
        grounds=said.grounds.to_json(),
        files=dict(bound.files),
        facts=bound.facts,
        **words,
    )


def mechanism(terms: Terms) -> dict[str, str]:
    """The kinds, as the configuration names them."""
    privacy = terms.hiding
    source = "seed" if privacy.insecure_seeded_noise else "operating system"
    kinds = {"sampling": privacy.sampling, "noise": privacy.noise, "source": source}
    if isinstance(privacy, ClientDP):
        kinds["clipping"] = "adaptive" if privacy.adaptive_clipping else "fixed"
    return kinds


def versions() -> dict[str, str]:
    """Of the software that drew noise and counted."""
    return {"silotune": __version__, **{name: installed(name) for name in NOISE_PACKAGES}}


def standing(terms: Terms) -> str:
    """The unit of privacy, or why there is none, in one line for ``run.json``."""
    if terms.privacy.insecure_seeded_noise:
        return f"{NOT_PRIVATE}: {SEEDED}"
    return f"{NOT_PRIVATE}: {NO_PRIVACY}" if not terms.private else terms.unit


def _coupling(agreement: Agreement) -> dict[str, float]:
    """What was measured before the run, two digits of it, rounded up."""
    found = agreement.model.coupling
    if found is None or agreement.terms.unit != "example":
        return {}
    return {name: _two_digits(value) for name, value in asdict(found).items()}


def _two_digits(value: float) -> float:
    if not value or isinstance(value, int):
        return value
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit - 1e-9) * unit:.2g}")


def norm(privacy: ExampleDP | ClientDP) -> float:
    """The largest L2 norm of what one unit of privacy adds."""
    return privacy.max_update_norm if isinstance(privacy, ClientDP) else privacy.max_grad_norm


def units(agreement: Agreement) -> Mapping[str, int]:
    """Account -> how many units of privacy it is of, as declared."""
    if agreement.server.private:
        return {EVERY_CLIENT: len(agreement.sizes)}
    return agreement.sizes


def _unmoved(known: Mapping[str, SiloPrivacy], name: str, chain: Chain) -> SiloPrivacy | None:
    """What is known of an account, if it is of these very lines."""
    said = known.get(name)
    same = said is not None and (said.lines, said.head) == (len(chain), chain.head)
    return said if same else None


def _account(
    terms: Terms,
    size: int,
    planned: AnyCharge | None,
    chain: Chain,
    run: str,
    besides: Account,
    *,
    grid: float,
) -> SiloPrivacy:
    """What one account has spent.

    Args:
        terms: of the run.
        size: how many units of privacy there are, as declared.
        planned: what a round charges.
        chain: its ledger.
        run: the identity of the run.
        besides: charges that its owner may have written down and has not told.
        grid: of the privacy loss.
    """
    assert planned is not None
    privacy, book = terms.hiding, chain.book(run)
    whole = together(book.account, besides)
    spent = cost(whole, privacy.target_delta, privacy.relation, grid)
    rdp = cost_rdp(whole, privacy.target_delta, privacy.relation)
    seeded = privacy.insecure_seeded_noise
    return SiloPrivacy(
        num_examples=size,
        sampling_rate=sampling_rate(planned),
        noise_multiplier=planned.noise_multiplier,
        steps=book.steps,
        rounds=book.rounds,
        epsilon=math.inf if seeded else spent,
        epsilon_rdp=math.inf if seeded else rdp,
        epsilon_if_secret=spent if seeded else None,
        delta=privacy.target_delta,
        charges=to_lines(book.account),
        presumed=to_lines(besides),
        lines=len(chain),
        head=chain.head,
    )


def _counted(
    accounts: Mapping[str, SiloPrivacy],
    charges: Mapping[str, Account],
    privacy: ExampleDP | ClientDP,
    grid: float,
) -> dict[str, SiloPrivacy]:
    """With the figure of those that have paid most as dp-accounting itself counts it.

    Should that not be what was computed, all figures are its own.
    """

    def by_library(name: str) -> SiloPrivacy:
        counted = cost(charges[name], privacy.target_delta, privacy.relation, grid, library=True)
        if privacy.insecure_seeded_noise:
            return replace(accounts[name], epsilon_if_secret=counted)
        return replace(accounts[name], epsilon=counted)

    most = max(map(_figure, accounts.values()))
    counted = {n: by_library(n) for n, one in accounts.items() if _figure(one) == most}
    if all(math.isclose(_figure(one), most, rel_tol=AGREE) for one in counted.values()):
        return {**accounts, **counted}
    return {name: by_library(name) for name in accounts}


def _prices(agreement: Agreement, name: str) -> Mapping[str, AnyCharge]:
    return prices_of(agreement.price(name), agreement.releases(name))


def _with_life(
    silo: SiloPrivacy,
    own: Account,
    earlier: Sequence[Earlier] | None,
    privacy: ExampleDP | ClientDP,
) -> SiloPrivacy:
    """With what the silo's book knows of other runs, if it keeps one."""
    if earlier is None:
        return silo
    charged = [run for run in earlier if run.charges]  # an expert's silo may have sat out
    life = stated(charged, own, privacy.target_delta, privacy.relation)
    return replace(silo, lifetime=life)


def _figure(silo: SiloPrivacy) -> float:
    return silo.epsilon if silo.epsilon_if_secret is None else silo.epsilon_if_secret
