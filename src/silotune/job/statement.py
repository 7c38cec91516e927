"""Statement: what a private run guarantees, computed from the silos' ledgers as they stand."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

from silotune.privacy import Charge, ExampleLevel, LedgerEntry
from silotune.privacy.accounting import COARSE, FINE, epsilon
from silotune.privacy.ledger import read_ledger
from silotune.reports.facts import PrivacyStatement, SiloPrivacy
from silotune.reports.record import RunFolder

from .workshop import Workshop

TRUST = (
    "Each silo trusts itself only. Noise is added inside the silo, before anything leaves it: the "
    "guarantee holds against the server, the other silos, whoever reads their messages, and "
    "whoever gets the adapter."
)
HOLDS_IF = (
    "records of different silos are disjoint by origin; a person with records at several silos "
    "is protected by the sum of their epsilons"
)


def ledgers(workshop: Workshop, folder: RunFolder, run: str) -> dict[str, list[LedgerEntry]]:
    """Every silo's charges for this run, oldest first."""
    return {
        name: [e for e in read_ledger(folder.site(name) / "ledger.jsonl") if e.run == run]
        for name in workshop.sizes
    }


def spent(
    workshop: Workshop, entries: Mapping[str, list[LedgerEntry]], *, grid: float = COARSE
) -> dict[str, float]:
    """Epsilon of each silo so far; empty without privacy."""
    if not workshop.private:
        return {}
    delta = workshop.config.privacy.target_delta
    return {
        name: epsilon([e.charge() for e in charged], delta, grid=grid)
        for name, charged in entries.items()
    }


def statement(
    workshop: Workshop, entries: Mapping[str, list[LedgerEntry]], *, grid: float = FINE
) -> PrivacyStatement | None:
    """The whole statement; None without privacy. Its epsilons are upper bounds on any grid."""
    if not workshop.private:
        return None
    privacy = workshop.config.privacy
    costs = spent(workshop, entries, grid=grid)
    silos = {name: _silo(workshop, name, entries[name], costs[name]) for name in workshop.sizes}
    return PrivacyStatement(
        unit="example",
        relation=privacy.relation,
        sampling="Poisson: every record by its own coin, from the operating system, kept secret",
        noise="Gaussian, from the operating system, in double precision, never from a seed",
        accountant=f"PLD (dp-accounting {version('dp-accounting')}), grid {grid:g}",
        trust_model=TRUST,
        max_grad_norm=privacy.max_grad_norm,
        target_epsilon=privacy.target_epsilon,
        target_delta=privacy.target_delta,
        silos=silos,
        overall={"epsilon": max(costs.values()), "holds_if": HOLDS_IF},
        released=_released(workshop),
        not_covered=_not_covered(workshop),
    )


def _silo(workshop: Workshop, name: str, entries: list[LedgerEntry], cost: float) -> SiloPrivacy:
    mechanism = workshop.privacy[name]
    assert isinstance(mechanism, ExampleLevel)
    charges: list[Charge] = [entry.charge() for entry in entries]
    return SiloPrivacy(
        num_examples=workshop.sizes[name],
        sampling_rate=mechanism.sampling_rate,
        noise_multiplier=mechanism.noise_multiplier,
        steps=sum(charge.steps for charge in charges),
        rounds=len({entry.round for entry in entries}),
        epsilon=cost,
        delta=workshop.config.privacy.target_delta,
    )


def _released(workshop: Workshop) -> list[str]:
    roles = ", ".join(sorted(workshop.model.recipe.schedule.plan(0).share))
    return [
        f"after each round, every silo's trained tensors ({roles})",
        "each silo's declared number of records (public by declaration)",
        "the set of labels (public by declaration)",
    ]


def _not_covered(workshop: Workshop) -> list[str]:
    config = workshop.config
    items = [
        "the base model, and whatever it had learned before",
        "choices made by looking at private data: hyper-parameters, label set, declared sizes",
        "several records of one person: the unit is one record",
        "how long a round takes, and the behaviour of the machines",
        "rounding of floating-point numbers in the noise",
    ]
    if config.evaluation == "simulation":
        items.insert(0, "all metrics and the pictures of the data: this was a simulation")
    if config.evaluation == "site":
        items.insert(0, "scores on held-out records, which stay in each silo's own folder")
    if config.baselines:
        items.insert(0, f"the baselines ({', '.join(config.baselines)})")
    return items
