"""Refusal: what a policy does not allow of an offer. Pure, from terms and a declared number.

The reasons are for the site's own people. What goes out is the key of the first of them, which is
one of a fixed list (``KEYS``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import NamedTuple

from silotune.aggregation.fedopt import ServerAdam, ServerMomentum, ServerYogi
from silotune.core.units import count_text, epsilon_text, number_text
from silotune.federation.offer import Offer
from silotune.methods import Method
from silotune.methods.base import OwnAxes
from silotune.methods.registry import built_in
from silotune.objectives import is_known
from silotune.objectives.base import columns_read
from silotune.optim import SGD, AdamW
from silotune.privacy import ClientDP, ExampleDP, NoDP
from silotune.terms import Terms

from .bounds import beyond
from .judged import unjudged
from .policy import Policy
from .price import epsilon_of

_LOG = logging.getLogger(__name__)

NEVER = ("terms", "classes", "bounds", "files", "evaluation", "labels")
"""What no policy allows."""

KEYS = (
    *NEVER,
    "coordinator",
    "columns",
    "methods",
    "personal",
    "max_rounds",
    "max_local_steps",
    "releases",
    "privacy.units",
    "privacy.min_other_sites",
    "privacy.relations",
    "privacy.noise",
    "privacy.max_delta",
    "privacy.lifetime",
    "privacy.max_epsilon",
)
"""What may stand behind ``policy:``: these, or keys of a policy."""

OPTIMIZERS = (SGD, AdamW)
SERVERS = (type(None), ServerMomentum, ServerAdam, ServerYogi)
CHOICES = (ExampleDP, ClientDP, NoDP)
"""The catalogue's own classes; one that inherits from these may do anything."""


class Reason(NamedTuple):
    """Why an offer is refused.

    Attributes:
        key: one of ``KEYS``.
        text: what is asked, what is allowed, and the cure; for the site's own people.
    """

    key: str
    text: str


def refusal(policy: Policy, offer: Offer, num_examples: int) -> str | None:
    """The code of the first thing that a policy does not allow; None if it allows the offer.

    It never raises: an offer that cannot be judged is refused, and stops nobody from looking at
    others.

    Args:
        policy: of the site.
        offer: as it came.
        num_examples: what the site declares.
    """
    try:
        first = next(reasons(policy, offer, num_examples), None)
    except Exception:
        _LOG.exception("%s: cannot be judged, and is refused", offer.run)
        return "policy:terms"
    return None if first is None else f"policy:{first.key}"


def reasons(policy: Policy, offer: Offer, num_examples: int) -> Iterator[Reason]:
    """Everything that a policy does not allow, the cheapest to see first.

    Nothing of an offer is asked for its price whose rounds and steps are not allowed.

    Args:
        policy: of the site.
        offer: as it came.
        num_examples: what the site declares.
    """
    if strange := [*_strangers(offer.terms)]:
        yield Reason("classes", f"{', '.join(strange)} is code of somebody's own; no policy allows")
        return
    if unknown := [*unjudged(offer)]:
        yield Reason("terms", f"this silotune knows nothing of {', '.join(unknown)}; upgrade it")
        return
    if large := [*beyond(offer)]:
        yield Reason("bounds", f"no site begins with {', '.join(large)}")
        return
    found = [*_never(offer), *_asked(policy, offer), *_effort(policy, offer.terms, num_examples)]
    yield from found
    yield from _hiding(policy, offer)
    if not any(reason.key in ("max_rounds", "max_local_steps") for reason in found):
        yield from _price(policy, offer, num_examples)


def _strangers(terms: Terms) -> Iterator[str]:
    """Fields that hold an object of a class that is not the catalogue's own."""
    method = terms.method
    known = {
        "terms": type(terms) is Terms,
        "objective": is_known(terms.objective),
        "optimizer": type(terms.optimizer) in OPTIMIZERS,
        "server_optimizer": type(terms.server_optimizer) in SERVERS,
        "privacy": type(terms.privacy) in CHOICES,
        "method": _is_ours(method),
        "aggregation": method.aggregation is None or _is_ours(method.aggregation),
    }
    return (name for name, is_ours in known.items() if not is_ours)


def _is_ours(method: Method) -> bool:
    plain = type(method.own) is OwnAxes and method.own == OwnAxes()
    return plain and type(method) in built_in().values()


def _never(offer: Offer) -> Iterator[Reason]:
    """What no policy allows."""
    terms, method = offer.terms, offer.terms.method
    if method.init_from is not None or type(method).opened is not Method.opened:
        yield Reason("files", "the method begins from files, which nobody may name at a site")
    if terms.evaluation not in ("site", "public"):
        yield Reason("evaluation", "simulation shows scores of private records to everybody")
    if terms.objective.label_names != offer.labels:  # None: only records could tell it
        yield Reason("labels", "the label set is not declared, so records would have to tell it")


def _asked(policy: Policy, offer: Offer) -> Iterator[Reason]:
    """Who asks, and for what."""
    terms, method = offer.terms, offer.terms.method
    if offer.coordinator != policy.coordinator:
        named = f"is {policy.coordinator!a}" if policy.coordinator else "names nobody"
        yield Reason("coordinator", f"{offer.coordinator!a} asks, and coordinator {named}")
    if strange := [*_columns(policy, terms)]:
        yield Reason("columns", f"{_list(tuple(strange))} would be read; list what may be")
    if not {method.name, (method.aggregation or method).name} <= set(policy.methods):
        yield Reason("methods", f"{method.label} is not among methods ({_list(policy.methods)})")
    plans = terms.axes(head=terms.trains_head).schedule.plans()
    if policy.personal != "keep" and any(plan.trained() - plan.share for plan in plans):
        yield Reason("personal", "tensors would be trained that stay at the site; allow it by keep")
    noisy = {"count": terms.privacy.count_noise, "metric": terms.privacy.metric_noise}
    for release, noise in noisy.items():
        if noise is not None and release not in policy.releases:
            yield Reason("releases", f"a noisy {release} would be sent; add {release} to allow it")


def _columns(policy: Policy, terms: Terms) -> Iterator[str]:
    """Columns that may not be read."""
    choice, read = terms.privacy, columns_read(terms.objective)
    hidden = choice.unit == "example" and not choice.insecure_seeded_noise
    if policy.columns or (policy.approve == "any" and not hidden):
        yield from (ascii(name) for name in read if name not in policy.columns)


def _effort(policy: Policy, terms: Terms, num_examples: int) -> Iterator[Reason]:
    reserve = getattr(terms.privacy, "reserve_rounds", 0)
    for key, asked, most in (
        ("max_rounds", max(terms.rounds, reserve), policy.max_rounds),
        ("max_local_steps", terms.steps_of(num_examples), policy.max_local_steps),
    ):
        if not asked <= most:
            yield Reason(key, f"{asked:,} are asked for, and {most:,} allowed")


def _hiding(policy: Policy, offer: Offer) -> Iterator[Reason]:
    """Who is hidden from whom, and how."""
    rules, choice = policy.privacy, offer.terms.privacy
    hides = choice.unit if not choice.insecure_seeded_noise else "none"
    if not {choice.unit, hides} <= set(rules.units):
        seeded = " with noise from a seed, which hides nothing," if hides != choice.unit else ""
        yield Reason(
            "privacy.units", f"unit {choice.unit}{seeded} is not among units ({_list(rules.units)})"
        )
    terms, everybody = offer.terms, len(offer.participants)
    most = min(terms.clients_per_round or everybody, everybody)
    usual = most if terms.cohort_rate is None else 1  # chance may ask this site alone
    others = min(terms.min_clients or usual, most) - 1
    if not others >= rules.min_other_sites:
        yield Reason(
            "privacy.min_other_sites",
            f"a mean may be of this site and {count_text(others, 'other')}, and "
            f"min_other_sites is {rules.min_other_sites}",
        )
    if isinstance(choice, NoDP):
        return
    if choice.relation not in rules.relations:
        yield Reason(
            "privacy.relations", f"{choice.relation} is not among them ({_list(rules.relations)})"
        )
    if choice.noise not in rules.noise:
        yield Reason("privacy.noise", f"{choice.noise} is not among it ({_list(rules.noise)})")
    if not 0 < choice.target_delta <= rules.max_delta:
        yield Reason(
            "privacy.max_delta",
            f"the run has delta {number_text(choice.target_delta)}, and "
            f"{number_text(rules.max_delta)} is allowed",
        )
    if choice.unit == "example" and rules.units == ("example",) and rules.lifetime is None:
        yield Reason("privacy.lifetime", "it is not said what all runs together may cost; say it")


def _price(policy: Policy, offer: Offer, num_examples: int) -> Iterator[Reason]:
    if isinstance(offer.terms.privacy, NoDP) or offer.terms.privacy.insecure_seeded_noise:
        return  # nothing is claimed, which ``units`` allows or not
    most = policy.privacy.max_epsilon
    try:
        cost = epsilon_of(offer, num_examples)
    except ValueError as error:
        yield Reason("privacy.max_epsilon", f"the run has no price here: {error}")
        return
    if not 0 < cost <= most:
        yield Reason(
            "privacy.max_epsilon",
            f"the run costs epsilon {epsilon_text(cost)}, and {number_text(most)} is allowed",
        )


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "none"
