"""Show: what whoever answers for the records must know of an offer before saying yes.

All of it follows from the offer, the site's own file and its own books. Text that came with the
offer is shown plain, and is the coordinator's word.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from silotune.certificate.guarantee import NOUNS, PROTECTED, RELATIONS
from silotune.core.plain import plain
from silotune.core.units import count_text, epsilon_text, number_text
from silotune.federation.offer import Offer
from silotune.methods.catalogue import WORDS
from silotune.privacy import ClientDP, ExampleDP, NoDP
from silotune.privacy.lifetime.spent import SetSpent
from silotune.terms import Terms

from .approval import REFUSED, WAITS, Approval, hindrance
from .counted import Counted
from .own import OwnSite
from .price import epsilon_of
from .refusal import Reason, reasons

ENOUGH = 16
"""Digits of a digest that a person compares, and types."""

_DAMAGED = frozenset({"classes", "terms", "bounds", "max_rounds", "max_local_steps"})
"""Reasons for which an offer is not asked for its price."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading, and what stands under it, a sentence each."""

    heading: str
    lines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An offer as it is shown.

    Attributes:
        run: its name.
        title: for people, by the coordinator's word.
        coordinator: who asks.
        fingerprint: of the coordinator's key, as the site has it; empty if it has none.
        offer: SHA-256 of all that is offered.
        base: SHA-256 of the base model.
        policy: SHA-256 of what the site allows now.
        unit: of privacy.
        epsilon: of the whole run at worst; infinite where nothing is hidden, NaN where it is not
            asked for.
        delta: of the run; NaN where nothing is hidden.
        spent_epsilon: of all runs so far, of the records that have paid most.
        spent_delta: that this is at; NaN if nothing was paid.
        refused: what the policy does not allow: key and reason.
        hindrance: the code that keeps it from beginning as far as people are concerned.
        sections: all of it in words.
    """

    run: str
    title: str
    coordinator: str
    fingerprint: str
    offer: str
    base: str
    policy: str
    unit: str
    epsilon: float
    delta: float
    spent_epsilon: float
    spent_delta: float
    refused: tuple[Reason, ...]
    hindrance: str | None
    sections: tuple[Section, ...]


def shown(
    own: OwnSite,
    offer: Offer,
    said: Approval | None,
    spent: Sequence[SetSpent],
    fingerprint: str = "",
    sizes: Counted | None = None,
) -> Shown:
    """Everything that is known of an offer at a site.

    Args:
        own: the site.
        offer: as it came.
        said: what a person has said to it.
        spent: what the site's book says, set by set.
        fingerprint: of the coordinator's key.
        sizes: of the adapted model, where it was opened.
    """
    choice = offer.terms.privacy
    found = tuple(reasons(own.policy, offer, own.num_examples))
    cost = math.nan
    if not _DAMAGED & {reason.key for reason in found}:
        cost = _cost(offer, own.num_examples)
    most = max(spent, key=lambda each: each.life.epsilon, default=None)
    code = hindrance(own.policy, offer, said)
    return Shown(
        run=offer.run,
        title=plain(offer.title),
        coordinator=offer.coordinator,
        fingerprint=fingerprint,
        offer=offer.digest,
        base=offer.base,
        policy=own.policy.digest,
        unit=choice.unit,
        epsilon=cost,
        delta=math.nan if isinstance(choice, NoDP) else choice.target_delta,
        spent_epsilon=most.life.epsilon if most else 0.0,
        spent_delta=most.delta if most else math.nan,
        refused=found,
        hindrance=code,
        sections=(
            Section(heading="who asks", lines=tuple(_who(own, offer, fingerprint))),
            Section(heading="what is trained", lines=tuple(_trained(own, offer, sizes))),
            Section(heading="what leaves this site", lines=tuple(_leaves(own, offer.terms))),
            Section(
                heading="what it costs the records", lines=tuple(_costs(own, offer, cost, most))
            ),
            Section(heading="what becomes of the result", lines=tuple(_result(own))),
            Section(heading="what this site says", lines=tuple(_verdict(offer, found, code, said))),
            Section(heading="digests (SHA-256)", lines=tuple(_digests(own, offer))),
        ),
    )


def _cost(offer: Offer, num_examples: int) -> float:
    try:
        return epsilon_of(offer, num_examples)
    except ValueError:
        return math.nan  # which the reasons say


def _who(own: OwnSite, offer: Offer, fingerprint: str) -> Iterator[str]:
    key = f"key {fingerprint}" if fingerprint else "whose key this site does not have"
    yield f"{offer.coordinator}, {key}"
    yield f"title: {plain(offer.title)}"
    yield f"run: {offer.run}, which the coordinator began {plain(offer.began, 40)}"
    others = [name for name in offer.participants if name != own.name]
    listed = plain(", ".join(others), 1000) or "nobody"
    yield f"besides this site, by the coordinator's word: {listed}"
    if own.name not in offer.participants:
        yield f"this site, {own.name}, is not among those who are asked"


def _trained(own: OwnSite, offer: Offer, sizes: Counted | None) -> Iterator[str]:
    terms = offer.terms
    lacks = own.lacks(offer.base_files)
    here = "which is not among models here" if lacks else "which is here"
    name = f"{plain(terms.model)} ({offer.base_files[:ENOUGH]}...)"
    yield f"base model: {name}, {here}; it stays frozen"
    if lacks and offer.base_files:
        yield f"to have it here, name its folder in the site's file: {models_line(offer)}"
    yield f"method: {plain(terms.method.full_title)}. {plain(terms.method.description, 1000)}"
    columns = ", ".join(
        f"{part} from {', '.join([name] if isinstance(name, str) else name)}"
        for part, name in terms.objective.columns.items()
    )
    yield f"task: {terms.objective.task}; of each record it reads {plain(columns)}"
    if offer.labels:
        yield f"labels: {plain(', '.join(offer.labels), 1000)}"
    trained, stay = _roles(terms)
    yield f"trained here: {', '.join(trained)}" + (f"; {', '.join(stay)} never leave" * bool(stay))
    if sizes is not None:
        yield (
            f"{count_text(sizes.tensors, 'tensor')} of {sizes.trained:,} numbers are trained, and "
            f"{sizes.sent:,} numbers sent in a round, of {sizes.total:,}"
        )
    yield (
        f"{count_text(terms.rounds, 'round')} of "
        f"{count_text(terms.steps_of(own.num_examples), 'step')}, each on "
        f"about {count_text(terms.batch_size, 'record')} of {own.num_examples:,}"
    )


def models_line(offer: Offer) -> str:
    """What a site's file says of an offer's base model, but for the folder."""
    return f"models: {{{offer.base_files}: FOLDER}}"


def _roles(terms: Terms) -> tuple[list[str], list[str]]:
    """What is trained, and what of it stays."""
    plans = terms.axes(head=terms.trains_head).schedule.plans()
    trained = frozenset().union(*(plan.trained() for plan in plans))
    sent = frozenset().union(*(plan.share for plan in plans))
    return sorted(WORDS[role] for role in trained), sorted(WORDS[role] for role in trained - sent)


def _leaves(own: OwnSite, terms: Terms) -> Iterator[str]:
    choice, (trained, stay) = terms.privacy, _roles(terms)
    sent = ", ".join(name for name in trained if name not in stay)
    match choice:
        case ExampleDP() if not choice.insecure_seeded_noise:
            how = "blurred by noise here, before they leave"
        case ClientDP():
            how = "AS THEY ARE: the coordinator is trusted with them, and adds the noise"
        case _:
            how = "AS THEY ARE: nothing hides what they tell of the records"
    yield f"after each round, the trained tensors ({sent}), {how}"
    if choice.count_noise is not None:
        yield f"once, the number of training records, with noise of {choice.count_noise:g} records"
    if choice.metric_noise is not None:
        yield (
            f"after each of {count_text(terms.training.scores, 'scored round')}, how many held-out "
            f"records are right, with noise of {choice.metric_noise:g} records"
        )
    yield f"the number of training records that this site declares, {own.num_examples:,}"
    if choice.metric_noise is not None:
        held = "none" if own.num_held_out is None else f"{own.num_held_out:,}"
        yield f"the number of held-out records that it declares, {held}"
    yield (
        "what each release is charged, and when; that it accepted, and when; the digest of this "
        "site's policy; versions of its software; and, where it refuses, a code from a fixed list"
    )
    yield "nothing else: no record, no score without noise, no message of an error"


def _costs(own: OwnSite, offer: Offer, cost: float, most: SetSpent | None) -> Iterator[str]:
    choice = offer.terms.privacy
    if isinstance(choice, NoDP) or choice.insecure_seeded_noise:
        yield "NOT PRIVATE: nothing bounds what is told of any record"
    else:
        noun = NOUNS[choice.unit]
        told = "not computed" if math.isnan(cost) else f"at most {epsilon_text(cost)}"
        yield (
            f"this run: epsilon {told} at delta {number_text(choice.target_delta)}, for "
            f"{PROTECTED[choice.unit]}"
        )
        yield f"{RELATIONS[choice.relation].format(noun=noun)} ({choice.relation})"
        given = choice.noise_multiplier
        sigma = "as much as the epsilon asks for" if given is None else f"multiplier {given:g}"
        yield f"noise: {choice.noise}, {sigma}; sampling: {choice.sampling}"
    if most is None:
        yield "all runs before it: none is in this site's book"
    else:
        why = f" ({most.life.because})" if most.life.because else ""
        yield (
            f"all {count_text(most.life.runs, 'run')} before it: epsilon at most "
            f"{epsilon_text(most.life.epsilon)} at delta {number_text(most.delta)}{why}"
        )
    life = own.policy.privacy.lifetime
    if life is None:
        yield "all runs together: this site has no limit (policy.privacy.lifetime)"
    else:
        yield (
            f"all runs together: at most {epsilon_text(life.epsilon)} at delta "
            f"{number_text(life.delta)}; a run that would bring a record above it is refused"
        )


def _result(own: OwnSite) -> Iterator[str]:
    yield "the coordinator has the model that is made of all sites' updates, and may publish it"
    if own.policy.accept_result:
        yield "it is also written into this site's folder (policy.accept_result: true)"
    else:
        yield "it is not written into this site's folder (policy.accept_result: false)"


def _verdict(
    offer: Offer, found: Sequence[Reason], code: str | None, said: Approval | None
) -> Iterator[str]:
    for reason in found:
        yield f"refused by policy.{reason.key}: {reason.text}"
    if not found:
        yield "the policy allows it"
    if said is not None and said.offer != offer.digest:
        yield f"ALTERED: what was {said.decision} {said.time} was another offer of this name"
    name = f"{offer.run} --digest {offer.digest[:ENOUGH]}"
    if code == REFUSED:
        yield f"refused by a person; to take it back: silotune site approve {name}"
    elif code == WAITS:
        yield f"waits for a person: silotune site approve {name}, or refuse"
    else:
        yield "approved" + (f" {said.time}" if said and said.offer == offer.digest else "")


def _digests(own: OwnSite, offer: Offer) -> Iterator[str]:
    yield f"offer       {offer.digest}"
    yield f"base        {offer.base}"
    yield f"base files  {offer.base_files or 'not told'}"
    yield f"policy      {own.policy.digest}"
