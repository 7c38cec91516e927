"""Wording: what a certificate says in sentences, of every kind of mechanism.

A unit of privacy has one ``Wording``: ``EXAMPLE`` (example_wording.py) and ``CLIENT``
(client_wording.py). Each sentence is a claim. It is here if the code keeps it, and nothing that
would only make epsilon look smaller is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from silotune.privacy import ClientDP
from silotune.terms import Agreement, Terms

from .circumstances import Circumstances

OPERATING_SYSTEM = "the operating system"
SEED = "train.seed, which is NO SECRET"

GENERATOR = "from a cryptographic generator (AES-256 in counter mode) keyed by {source}"

RDP = "Rényi divergences at integer orders"

EVERYBODY = "everybody"
"""Key of a sampling that leaves nobody out."""

COUNT = "once, each silo's number of training records, with noise of its own"

METRIC = (
    "after each scored round, how many held-out records the model gets right at each "
    "silo, with noise of its own"
)

CLIPPING_NORM = "after each round, the clipping norm, which follows a noised count"

SIMULATED = "all metrics and the pictures of the data: this was a simulation"

BASE_MODEL = "the base model, and whatever it had learned before"

EXPERTS = (
    "what the experts (method.experts) learned before: each carries the epsilon of its "
    "own run, if any, and where records are the same, the two add up"
)

EXPERTS_COUNTED = (
    "what the experts (method.experts) learned before: those with a certificate beside them are "
    "counted in the figure for life of each silo of the same name; of others nothing is known"
)

CHOICES = "choices made by looking at private data: hyper-parameters, label set, declared sizes"

MACHINES = "how long a round takes, and the behaviour of the machines"

TURNS_ARE_KNOWN = "amplification by sampling: turns count as known to everybody"


@dataclass(frozen=True, kw_only=True)
class Wording:
    """The sentences of one unit of privacy. An empty one is not said.

    Attributes:
        adversary: against whom the guarantee holds.
        trust_model: who is trusted with what.
        sampling: kind -> how it is drawn, of {source} and in {turns}.
        noise: kind -> which noise is added, of {source}.
        update: what leaves in every round: the tensors of {roles}.
        declared: what is public by declaration.
        holds_if: when the largest epsilon of an account is that of everybody.
        if_infinite: the same where it is infinite.
        if_composed: the same where accounts are composed; empty if they never are.
        baselines: the runs named {names} for comparison.
        site_scores: scores that stay at a client.
        limited: a draw from all records.
        dealt: records dealt out by looking at all of them.
        insiders: who sees more than the adversary that is counted on.
        people: people with several units; {most} is a remark on how many.
        participation: what taking part shows.
        other_runs: that they add up, and how far they are counted.
        unrecorded: the same, where no book is kept.
        noise_rounding: of all noise but the discrete one.
        gradient_rounding: of what is computed together.
        unclaimed: what would make epsilon smaller, and is not counted on.
    """

    adversary: str
    trust_model: str
    sampling: Mapping[str, str]
    noise: Mapping[str, str]
    update: str
    declared: tuple[str, ...]
    holds_if: str
    if_infinite: str
    if_composed: str = ""
    baselines: str
    site_scores: str
    limited: str = ""
    dealt: str = ""
    insiders: str = ""
    people: str
    participation: tuple[str, ...]
    other_runs: tuple[str, ...] = ()
    unrecorded: str
    noise_rounding: str
    gradient_rounding: str = ""
    unclaimed: tuple[str, ...]

    def sampling_of(self, terms: Terms) -> str:
        """How batches or cohorts are drawn."""
        privacy = terms.privacy
        if not isinstance(privacy, ClientDP):
            return self.sampling[privacy.sampling].format(source=source(terms))
        kind = EVERYBODY if privacy.client_sampling_rate == 1.0 else privacy.sampling
        return self.sampling[kind].format(source=source(terms), turns=privacy.turns)

    def noise_of(self, terms: Terms) -> str:
        """Which noise is added."""
        return self.noise[terms.privacy.noise].format(source=source(terms))

    def released(self, agreement: Agreement) -> Iterator[str]:
        """What leaves under the guarantee."""
        privacy = agreement.terms.privacy
        yield self.update.format(roles=", ".join(sorted(agreement.model.axes.trained())))
        if privacy.count_noise is not None:
            yield COUNT
        if privacy.metric_noise is not None:
            yield METRIC
        if isinstance(privacy, ClientDP) and privacy.adaptive_clipping:
            yield CLIPPING_NORM
        yield from self.declared

    def not_covered(self, terms: Terms, circumstances: Circumstances) -> Iterator[str]:
        """What epsilon says nothing about.

        Args:
            terms: of the run.
            circumstances: how it was made.
        """
        return (sentence for sentence in self._not_covered(terms, circumstances) if sentence)

    def not_claimed(self, terms: Terms) -> Iterator[str]:
        """What would make epsilon smaller, and is not counted on."""
        if terms.privacy.sampling == "rotation":
            yield TURNS_ARE_KNOWN
        yield from self.unclaimed

    def _not_covered(self, terms: Terms, circumstances: Circumstances) -> Iterator[str]:
        if circumstances.baselines:
            yield self.baselines.format(names=", ".join(circumstances.baselines))
        if terms.evaluation == "simulation":
            yield SIMULATED
        if terms.evaluation == "site":
            yield self.site_scores
        yield self.limited if circumstances.limited else ""
        yield self.dealt if circumstances.dealt else ""
        yield self.insiders
        yield BASE_MODEL
        counted = circumstances.recorded and bool(self.other_runs)
        if getattr(terms.method, "experts", ()):
            yield EXPERTS_COUNTED if counted else EXPERTS
        yield from self.other_runs if counted else (self.unrecorded,)
        yield CHOICES
        most = circumstances.people.most if circumstances.people else 0
        yield self.people.format(most=f"; here one person has {most}" if most > 1 else "")
        yield from self.participation
        yield MACHINES
        yield self.noise_rounding if terms.privacy.noise != "discrete" else ""
        yield self.gradient_rounding


def source(terms: Terms) -> str:
    """Where noise and coins come from."""
    return SEED if terms.privacy.insecure_seeded_noise else OPERATING_SYSTEM
