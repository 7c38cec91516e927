"""Certificate: what a run under privacy guarantees, from its ledgers.

Everything that a checker needs is in it as numbers; what it means is in it as sentences. Where
noise came from a seed no epsilon is finite: the figures stand beside, as what secret noise would
have given. Under example-level privacy every silo has an account; under client-level privacy there
is one, that of every client: all are charged alike, whether they were asked or not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from silotune.engine import EVERY_CLIENT
from silotune.privacy import AnyCharge, ClientDP, ExampleDP, LedgerEntry
from silotune.privacy.accounting.accountant import FINE
from silotune.privacy.ledger.entry import UPDATE
from silotune.privacy.lifetime.composition import Earlier
from silotune.runs.privacy_statement import FORMAT, PrivacyStatement, SiloPrivacy
from silotune.terms import Agreement, Terms
from silotune.version import __version__

from .accounts import (
    Account,
    account_of,
    cost,
    cost_rdp,
    cost_together,
    membership_bound,
    sampling_rate,
    to_lines,
)
from .circumstances import Circumstances
from .client_wording import CLIENT
from .example_wording import EXAMPLE
from .guarantee import NO_NOISE, NO_PRIVACY, NOT_PRIVATE, SEEDED
from .lifetime import mark, stated
from .wording import RDP

NOTHING_CLAIMED = {"unit": "none", "private": False, "not_private_because": NO_PRIVACY}
"""The certificate of a run without privacy."""

NOISE_PACKAGES = ("dp-accounting", "torch", "numpy", "cryptography")
"""Whose versions decide noise and figures."""


WORDINGS = {"example": EXAMPLE, "client": CLIENT}
"""Unit of privacy -> its sentences."""


def issue(
    agreement: Agreement,
    circumstances: Circumstances,
    run: str,
    entries: Mapping[str, Sequence[LedgerEntry]],
    *,
    grid: float,
    elsewhere: Mapping[str, Sequence[Earlier]] | None = None,
) -> PrivacyStatement:
    """The certificate of a run under privacy. Its epsilons are upper bounds on any grid.

    Args:
        agreement: of the run.
        circumstances: how it was made.
        run: its identity.
        entries: the charges of every account: each silo's, or that of every client.
        grid: of the privacy loss; only on the fine one it says what an attack can reach.
        elsewhere: of each silo that keeps a book, the other runs in it that count.
    """
    terms, privacy = agreement.terms, agreement.terms.hiding
    words = WORDINGS[terms.unit]
    charges = [account_of(entries[name]) for name in _units(agreement)]
    accounts = {
        name: _account(terms, size, agreement.price(name), entries[name], grid=grid)
        for name, size in _units(agreement).items()
    }
    finite = all(math.isfinite(_figure(account)) for account in accounts.values())
    because = SEEDED if privacy.insecure_seeded_noise else "" if finite else NO_NOISE
    certified = grid <= FINE and not because
    if certified and circumstances.recorded:
        accounts = {
            name: _with_life(account, own, (elsewhere or {}).get(name), privacy)
            for (name, account), own in zip(accounts.items(), charges, strict=True)
        }
    accountant, cross_check = accountants(terms)
    return PrivacyStatement(
        format=FORMAT,
        run=run,
        private=not because,
        not_private_because=because,
        unit=terms.unit,
        relation=privacy.relation,
        mechanism=mechanism(terms),
        sampling=words.sampling_of(terms),
        noise=words.noise_of(terms),
        accountant=accountant.format(grid=f"{grid:g}"),
        grid=grid,
        cross_check=cross_check,
        adversary=words.adversary,
        trust_model=words.trust_model,
        max_grad_norm=_norm(privacy),
        target_epsilon=privacy.target_epsilon,
        target_delta=privacy.target_delta,
        silos=accounts,
        overall=_overall(terms, circumstances, charges, accounts, grid=grid),
        recognition=membership_bound(charges, privacy.relation) if certified else {},
        lifetime=mark(terms, circumstances),
        versions=versions(),
        released=list(words.released(agreement)),
        not_covered=list(words.not_covered(terms, circumstances)),
        not_claimed=list(words.not_claimed(terms)),
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
    return {"silotune": __version__, **{name: version(name) for name in NOISE_PACKAGES}}


def standing(terms: Terms) -> str:
    """The unit of privacy, or why there is none, in one line for ``run.json``."""
    if terms.privacy.insecure_seeded_noise:
        return f"{NOT_PRIVATE}: {SEEDED}"
    return f"{NOT_PRIVATE}: {NO_PRIVACY}" if not terms.private else terms.unit


def accountants(terms: Terms) -> tuple[str, str]:
    """By what epsilon was computed (with a place for the grid), and by what it was checked."""
    pld = f"PLD (dp-accounting {version('dp-accounting')}), grid {{grid}}"
    privacy = terms.hiding
    if privacy.noise == "discrete":
        return RDP, "none: nothing tighter is proved for discrete noise"
    if privacy.sampling == "truncated-poisson" or (
        privacy.sampling == "poisson" and privacy.relation == "replace-one"
    ):
        return pld, "none: Rényi divergences do not cover this sampling under this relation"
    return pld, f"{RDP}, which may never give less"


def _norm(privacy: ExampleDP | ClientDP) -> float:
    """The largest L2 norm of what one unit of privacy adds."""
    return privacy.max_update_norm if isinstance(privacy, ClientDP) else privacy.max_grad_norm


def _units(agreement: Agreement) -> Mapping[str, int]:
    """Account -> how many units of privacy it is of, as declared."""
    if agreement.server.private:
        return {EVERY_CLIENT: len(agreement.sizes)}
    return agreement.sizes


def _overall(
    terms: Terms,
    circumstances: Circumstances,
    charges: Sequence[Account],
    accounts: Mapping[str, SiloPrivacy],
    *,
    grid: float,
) -> dict[str, Any]:
    """Of all accounts together: the largest; composed where people may be in several of them."""
    words = WORDINGS[terms.unit]
    largest = max(account.epsilon for account in accounts.values())
    if not math.isfinite(largest):
        return {"epsilon": largest, "rule": "maximum", "holds_if": words.if_infinite}
    if not (circumstances.composed and words.if_composed):
        return {"epsilon": largest, "rule": "maximum", "holds_if": words.holds_if}
    privacy = terms.hiding
    together = cost_together(charges, privacy.target_delta, privacy.relation, grid)
    return {"epsilon": together, "rule": "composition", "holds_if": words.if_composed}


def _account(
    terms: Terms,
    size: int,
    planned: AnyCharge | None,
    entries: Sequence[LedgerEntry],
    *,
    grid: float,
) -> SiloPrivacy:
    """What one account has spent.

    Args:
        terms: of the run.
        size: how many units of privacy there are, as declared.
        planned: what a round charges.
        entries: of its ledger.
        grid: of the privacy loss.
    """
    assert planned is not None
    privacy, charges = terms.hiding, account_of(entries)
    updates = [entry for entry in entries if entry.release == UPDATE]
    spent = cost(charges, privacy.target_delta, privacy.relation, grid)
    rdp = cost_rdp(charges, privacy.target_delta, privacy.relation)
    seeded = privacy.insecure_seeded_noise
    return SiloPrivacy(
        num_examples=size,
        sampling_rate=sampling_rate(planned),
        noise_multiplier=planned.noise_multiplier,
        steps=sum(entry.charge.steps for entry in updates),
        rounds=len({entry.round for entry in updates}),
        epsilon=math.inf if seeded else spent,
        epsilon_rdp=math.inf if seeded else rdp,
        epsilon_if_secret=spent if seeded else None,
        delta=privacy.target_delta,
        charges=to_lines(charges),
    )


def _with_life(
    silo: SiloPrivacy,
    own: Account,
    earlier: Sequence[Earlier] | None,
    privacy: ExampleDP | ClientDP,
) -> SiloPrivacy:
    """With what the silo's book knows of other runs, if it keeps one."""
    if earlier is None:
        return silo
    life = stated(earlier, own, privacy.target_delta, privacy.relation)
    return replace(silo, lifetime=life)


def _figure(silo: SiloPrivacy) -> float:
    return silo.epsilon if silo.epsilon_if_secret is None else silo.epsilon_if_secret
