"""The certificate of a run under client-level privacy, from the server's ledger.

There is one account, that of every client: all are charged alike, whether they were asked or not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from silotune.config import Config, privacy_choice
from silotune.config.privacy_section import PrivacyConfig
from silotune.engine import EVERY_CLIENT
from silotune.federation.federation import Federation
from silotune.privacy import ClientDP, LedgerEntry
from silotune.privacy.accounting.accountant import FINE
from silotune.runs.facts import FORMAT, PrivacyStatement

from . import wording
from .accounts import account_of, membership_bound
from .guarantee import NO_NOISE, SEEDED
from .issue import account, accountants, mechanism, versions

ADVERSARY = (
    "whoever sees the released models: the other clients, who are sent one in every round they "
    "take part in, and whoever gets the adapter, all of them together; not the server"
)

TRUST = (
    "the server sees every client's update as it is and must be trusted with it, and with the "
    "names of those whom it asks; it clips, adds the noise, and keeps its random numbers secret. "
    "The way to the server must be closed to others"
)

SAMPLING = (
    "Poisson: in every round each client is asked by its own coin, drawn afresh from {source}; "
    "amplification by sampling is claimed, and holds while nobody but the server learns the coins"
)

ROTATION = (
    "in turn: each client has one turn of {turns}, drawn once for the whole run from {source}, is "
    "asked in every round that it comes round, and in no other round; no amplification by sampling "
    "is claimed"
)

EVERYBODY = "every client is asked in every round; no amplification by sampling is claimed"

NOISES = {
    "gaussian": f"Gaussian, in double precision, {wording.GENERATOR}",
    "correlated": "Gaussian, in double precision, correlated over rounds by a banded matrix "
    f"factorisation, {wording.GENERATOR}; σ is that of the independent noise behind it, in units "
    "of S",
}

ADDED = (
    "added once to every coordinate of the sum of clipped changes, which is then divided by the "
    "expected cohort"
)

HOLDS_IF = "everything that one person has is at one client"

UNCLAIMED = (
    "amplification by shuffling or by local steps: one release a round, charged in full",
    "clients that were lost: whoever might have been asked is charged",
    "distances between clipping norm and actual changes: every client is charged in full",
)


def client_level(
    workshop: Federation, run: str, entries: Sequence[LedgerEntry], *, grid: float
) -> PrivacyStatement:
    """The certificate of a run. Its epsilon is an upper bound on any grid.

    Args:
        workshop: of the run.
        run: its identity.
        entries: of the server's ledger.
        grid: of the privacy loss; only on the fine one it says what an attack can reach.
    """
    config, privacy = workshop.config, workshop.config.privacy
    choice = privacy_choice(privacy)
    assert isinstance(choice, ClientDP), "a server that hides nobody has no ledger"
    seeded = privacy.insecure_seeded_noise
    own = account(config, len(workshop.sizes), workshop.price(EVERY_CLIENT), entries, grid=grid)
    cost = own.epsilon if own.epsilon_if_secret is None else own.epsilon_if_secret
    because = SEEDED if seeded else "" if math.isfinite(cost) else NO_NOISE
    certified = grid <= FINE and not because
    by, check = accountants(config)
    source = wording.source(config)
    return PrivacyStatement(
        format=FORMAT,
        run=run,
        private=not because,
        not_private_because=because,
        unit="client",
        relation=privacy.relation,
        mechanism=mechanism(config),
        sampling=_sampling(privacy).format(source=source, turns=choice.turns),
        noise=f"{NOISES[privacy.noise].format(source=source)}; {ADDED}",
        accountant=by.format(grid=f"{grid:g}"),
        grid=grid,
        cross_check=check,
        adversary=ADVERSARY,
        trust_model=TRUST,
        max_grad_norm=privacy.max_update_norm,
        target_epsilon=privacy.target_epsilon,
        target_delta=privacy.target_delta,
        silos={EVERY_CLIENT: own},
        overall={"epsilon": own.epsilon, "rule": "maximum", "holds_if": HOLDS_IF},
        recognition=membership_bound([account_of(entries)], privacy.relation) if certified else {},
        versions=versions(),
        released=list(_released(workshop)),
        not_covered=list(_not_covered(config)),
        not_claimed=list(_not_claimed(privacy)),
    )


def _sampling(privacy: PrivacyConfig) -> str:
    if privacy.client_sampling_rate == 1.0:
        return EVERYBODY
    return ROTATION if privacy.sampling == "rotation" else SAMPLING


def _released(workshop: Federation) -> Iterator[str]:
    roles = ", ".join(sorted(workshop.model.recipe.trained()))
    yield f"after each round, the noised mean of the trained tensors ({roles})"
    if workshop.config.privacy.adaptive_clipping:
        yield "after each round, the clipping norm, which follows a noised count"
    yield "the list of clients, and their number (public by declaration)"
    yield "each client's declared number of records (public by declaration)"
    yield "the set of labels (public by declaration)"


def _not_covered(config: Config) -> Iterator[str]:
    if config.baselines:
        yield f"the baselines ({', '.join(config.baselines)}): they were trained without any noise"
    if config.evaluation == "simulation":
        yield "all metrics and the pictures of the data: this was a simulation"
    if config.evaluation == "site":
        yield "scores on held-out records, which stay in each client's own folder"
    yield "what the server, or whoever reads its messages or its memory, learns of a client"
    yield "the base model, and whatever it had learned before"
    if config.method.given("experts"):
        yield (
            "what the experts (method.experts) learned before: each carries the epsilon of its "
            "own run, if any, and where records are the same, the two add up"
        )
    yield "choices made by looking at private data: hyper-parameters, label set, declared sizes"
    yield "people whose records are at several clients: the unit is one client"
    yield "that somebody is one of the clients at all: their list is taken as public"
    yield "how long a round takes, and the behaviour of the machines"
    yield "rounding of floating-point numbers in the noise"


def _not_claimed(privacy: PrivacyConfig) -> Iterator[str]:
    if privacy.sampling == "rotation":
        yield "amplification by sampling: turns count as known to everybody"
    yield from UNCLAIMED
