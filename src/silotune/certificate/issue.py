"""Certificate: what a run under example-level privacy guarantees, from the silos' ledgers.

Everything that a checker needs is in it as numbers; what it means is in it as sentences. Where
noise came from a seed no epsilon is finite: the figures stand beside, as what secret noise would
have given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import silotune
from silotune.config import Config
from silotune.federation.federation import Federation
from silotune.privacy import AnyCharge, LedgerEntry
from silotune.privacy.accounting.accountant import FINE
from silotune.privacy.ledger.entry import UPDATE
from silotune.runs.facts import FORMAT, PrivacyStatement, SiloPrivacy

from . import wording
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
from .guarantee import NO_NOISE, NO_PRIVACY, NOT_PRIVATE, SEEDED

NOTHING_CLAIMED = {"unit": "none", "private": False, "not_private_because": NO_PRIVACY}
"""The certificate of a run without privacy."""

PACKAGES = ("dp-accounting", "torch", "numpy", "cryptography")
"""Whose versions decide noise and figures."""


def example_level(
    workshop: Federation, run: str, entries: Mapping[str, Sequence[LedgerEntry]], *, grid: float
) -> PrivacyStatement:
    """The certificate of a run. Its epsilons are upper bounds on any grid.

    Args:
        workshop: of the run.
        run: its identity.
        entries: every silo's charges.
        grid: of the privacy loss; only on the fine one it says what an attack can reach.
    """
    config, privacy = workshop.config, workshop.config.privacy
    seeded = privacy.insecure_seeded_noise
    accounts = [account_of(entries[name]) for name in workshop.sizes]
    silos = {
        name: account(config, size, workshop.price(name), entries[name], grid=grid)
        for name, size in workshop.sizes.items()
    }
    finite = all(math.isfinite(_figure(silo)) for silo in silos.values())
    because = SEEDED if seeded else "" if finite else NO_NOISE
    by = accountants(config)
    return PrivacyStatement(
        format=FORMAT,
        run=run,
        private=not because,
        not_private_because=because,
        unit="example",
        relation=privacy.relation,
        mechanism=mechanism(config),
        sampling=wording.sampling(config),
        noise=wording.noise(config),
        accountant=by[0].format(grid=f"{grid:g}"),
        grid=grid,
        cross_check=by[1],
        adversary=wording.ADVERSARY,
        trust_model=wording.TRUST,
        max_grad_norm=privacy.max_grad_norm,
        target_epsilon=privacy.target_epsilon,
        target_delta=privacy.target_delta,
        silos=silos,
        overall=_overall(config, accounts, [s.epsilon for s in silos.values()], grid=grid),
        recognition=membership_bound(accounts, privacy.relation)
        if grid <= FINE and not because
        else {},
        versions=versions(),
        released=list(_released(workshop)),
        not_covered=list(wording.not_covered(config, workshop.people)),
        not_claimed=list(wording.not_claimed(config)),
    )


def mechanism(config: Config) -> dict[str, str]:
    """The kinds, as the configuration names them."""
    privacy = config.privacy
    source = "seed" if privacy.insecure_seeded_noise else "operating system"
    kinds = {"sampling": privacy.sampling, "noise": privacy.noise, "source": source}
    if privacy.unit == "client":
        kinds["clipping"] = "adaptive" if privacy.adaptive_clipping else "fixed"
    return kinds


def versions() -> dict[str, str]:
    """Of the software that drew noise and counted."""
    return {"silotune": silotune.__version__, **{name: version(name) for name in PACKAGES}}


def standing(config: Config) -> str:
    """The unit of privacy, or why there is none, in one line for ``run.json``."""
    if config.privacy.insecure_seeded_noise:
        return f"{NOT_PRIVATE}: {SEEDED}"
    return f"{NOT_PRIVATE}: {NO_PRIVACY}" if config.privacy.unit == "none" else config.privacy.unit


def accountants(config: Config) -> tuple[str, str]:
    """By what epsilon was computed (with a place for the grid), and by what it was checked."""
    pld = f"PLD (dp-accounting {version('dp-accounting')}), grid {{grid}}"
    privacy = config.privacy
    if privacy.noise == "discrete":
        return wording.RDP, "none: nothing tighter is proved for discrete noise"
    if privacy.sampling == "truncated-poisson" or (
        privacy.sampling == "poisson" and privacy.relation == "replace-one"
    ):
        return pld, "none: Rényi divergences do not cover this sampling under this relation"
    return pld, f"{wording.RDP}, which may never give less"


def _overall(
    config: Config, accounts: Sequence[Account], epsilons: Sequence[float], *, grid: float
) -> dict[str, Any]:
    """Of all silos together: the largest; composed where people may be at several of them."""
    largest = max(epsilons)
    if not math.isfinite(largest):
        return {"epsilon": largest, "rule": "maximum", "holds_if": "never: nothing is private"}
    if config.data.person is None:
        return {"epsilon": largest, "rule": "maximum", "holds_if": wording.DISJOINT}
    privacy = config.privacy
    together = cost_together(accounts, privacy.target_delta, privacy.relation, grid)
    return {"epsilon": together, "rule": "composition", "holds_if": wording.COMPOSED}


def account(
    config: Config,
    size: int,
    planned: AnyCharge | None,
    entries: Sequence[LedgerEntry],
    *,
    grid: float,
) -> SiloPrivacy:
    """What one account has spent.

    Args:
        config: of the run.
        size: how many units of privacy there are, as declared.
        planned: what a round charges.
        entries: of its ledger.
        grid: of the privacy loss.
    """
    assert planned is not None
    privacy, charges = config.privacy, account_of(entries)
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


def _figure(silo: SiloPrivacy) -> float:
    return silo.epsilon if silo.epsilon_if_secret is None else silo.epsilon_if_secret


def _released(workshop: Federation) -> Iterator[str]:
    roles = ", ".join(sorted(workshop.model.recipe.trained()))
    privacy = workshop.config.privacy
    yield f"after each round, every silo's trained tensors ({roles})"
    if privacy.count_noise is not None:
        yield "once, each silo's number of training records, with noise of its own"
    if privacy.metric_noise is not None:
        yield (
            "after each scored round, how many held-out records the model gets right at each "
            "silo, with noise of its own"
        )
    yield "each silo's declared number of records (public by declaration)"
    yield "the set of labels (public by declaration)"
