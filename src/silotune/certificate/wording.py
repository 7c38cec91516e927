"""Wording: what a certificate says in sentences, of every kind of mechanism.

A unit of privacy has one ``Wording``: ``EXAMPLE`` (example_wording.py) and ``CLIENT``
(client_wording.py). Each sentence is a claim. It is here if the code keeps it, and nothing that
would only make epsilon look smaller is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .grounds import Grounds

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

SIMULATED = "all metrics, notices and pictures of the data: this was a simulation"

STARTED = (
    "that the run began: a record that cannot be used, a silo without records, or none to score "
    "by, ends it before the first step"
)

LAYOUT = (
    "how the data are laid out: which columns, silos and parts (train, valid, test) there are, "
    "also where records name them"
)

LABELS = (
    "the set of labels: nobody declared it, so it was taken from the data, and a single record "
    "can add a label"
)

COUNTED = (
    "the declared numbers of records ({names}): nobody gave them, so they were taken from the "
    "data, rounded down to two digits; one record at the edge of a step moves them"
)

LABELS_DECLARED = "the set of labels (public by declaration)"

TEXTS = (
    "how a record becomes tokens (public by declaration): the tokenizer and, of chats, the "
    "template, as they come with the base model"
)

BASE_MODEL = "the base model, and whatever it had learned before"

EXPERTS = (
    "what the experts (method.experts) learned before: each carries the epsilon of its "
    "own run, if any, and where records are the same, the two add up"
)

EXPERTS_COUNTED = (
    "what the experts (method.experts) learned before: those with a certificate beside them are "
    "counted in the figure for life of each silo of the same name; of others nothing is known"
)

START = (
    "what the adapter that the run began from (method.init_from) learned before: it is assumed to "
    "come from public data or from records of others; it carries the epsilon of its own run, if "
    "any, and where records are the same, the two add up"
)

START_COUNTED = (
    "what the adapter that the run began from (method.init_from) learned before: it is assumed to "
    "come from public data or from records of others; if a certificate (unit: example) lies beside "
    "it, that is counted in the figure for life of each silo of the same name; "
    "of others nothing is known"
)

CHOICES = "choices made by looking at private data: hyper-parameters, {labels}declared sizes"

AT_SITES = (
    "other runs on the same records, which add up: each site keeps its own book, which nobody else "
    "sees (silotune site spent, there), and refuses what is too much"
)

OWN_OBJECTIVE = (
    "losses of an objective that is not of this package: whether they look at other records was "
    "tried on a few made-up records, and is not known beyond them"
)

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
        limited: a choice among all records.
        dealt: records dealt out by looking at all of them.
        insiders: who sees more than the adversary that is counted on.
        people: people with several units.
        participation: what taking part shows.
        other_runs: that they add up, and how far they are counted.
        unrecorded: the same, where no book is kept.
        noise_rounding: of all noise but the discrete one.
        gradient_rounding: of what is computed together; not said of what is computed one by one.
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

    def sampling_of(self, mechanism: Mapping[str, str], grounds: Grounds) -> str:
        """How batches or cohorts are drawn."""
        kind = EVERYBODY if grounds.everybody else mechanism["sampling"]
        return self.sampling[kind].format(source=source(mechanism), turns=grounds.turns)

    def noise_of(self, mechanism: Mapping[str, str]) -> str:
        """Which noise is added."""
        return self.noise[mechanism["noise"]].format(source=source(mechanism))

    def released(self, mechanism: Mapping[str, str], grounds: Grounds) -> Iterator[str]:
        """What leaves under the guarantee."""
        yield self.update.format(roles=", ".join(grounds.roles))
        if grounds.count:
            yield COUNT
        if grounds.metric:
            yield METRIC
        if mechanism.get("clipping") == "adaptive":
            yield CLIPPING_NORM
        yield from self.declared
        yield LABELS_DECLARED if grounds.labelled else TEXTS

    def not_covered(
        self, mechanism: Mapping[str, str], grounds: Grounds, *, together: bool
    ) -> Iterator[str]:
        """What epsilon says nothing about.

        Args:
            mechanism: kinds of sampling and noise.
            grounds: how the run was made.
            together: whether several records go through the model at once.
        """
        found = self._not_covered(mechanism, grounds, together=together)
        return (sentence for sentence in found if sentence)

    def not_claimed(self, mechanism: Mapping[str, str]) -> Iterator[str]:
        """What would make epsilon smaller, and is not counted on."""
        if mechanism["sampling"] == "rotation":
            yield TURNS_ARE_KNOWN
        yield from self.unclaimed

    def _not_covered(
        self, mechanism: Mapping[str, str], grounds: Grounds, *, together: bool
    ) -> Iterator[str]:
        if grounds.baselines:
            yield self.baselines.format(names=", ".join(grounds.baselines))
        if grounds.evaluation == "simulation":
            yield SIMULATED
        if grounds.evaluation == "site":
            yield self.site_scores
        yield STARTED
        yield LAYOUT
        yield LABELS if grounds.labels_from_data else ""
        if grounds.counted:
            yield COUNTED.format(names=", ".join(grounds.counted))
        yield self.limited if grounds.limited else ""
        yield self.dealt if grounds.dealt else ""
        yield self.insiders
        yield BASE_MODEL
        in_books = grounds.recorded and bool(self.other_runs) and not grounds.at_sites
        if grounds.experts:
            yield EXPERTS_COUNTED if in_books else EXPERTS
        if grounds.start:
            yield START_COUNTED if in_books else START
        if grounds.at_sites:
            yield AT_SITES
        else:
            yield from self.other_runs if in_books else (self.unrecorded,)
        yield CHOICES.format(labels="label set, " if grounds.labelled else "")
        yield self.people
        yield from self.participation
        yield MACHINES
        yield self.noise_rounding if mechanism["noise"] != "discrete" else ""
        yield self.gradient_rounding if together else ""
        yield OWN_OBJECTIVE if self.gradient_rounding and grounds.own_objective else ""


def source(mechanism: Mapping[str, str]) -> str:
    """Where noise and coins come from."""
    return SEED if mechanism.get("source") == "seed" else OPERATING_SYSTEM
