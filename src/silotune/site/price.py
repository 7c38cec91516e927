"""What a run would cost a site's records at worst, from its terms and its own declared number."""

from __future__ import annotations

import math
from dataclasses import replace

from silotune.federation.offer import Offer
from silotune.privacy import ClientDP, ExampleDP, PrivacyBudget
from silotune.privacy.accounting.accountant import epsilon
from silotune.privacy.mechanisms_from_choice import client_mechanisms, server_mechanism
from silotune.privacy.planned_charges import (
    beside_training,
    releases,
    worst_case_rounds,
    worst_case_steps,
)
from silotune.privacy.size_checks import check_batch_size, check_delta

from .policy import PrivacyPolicy


def epsilon_of(offer: Offer, num_examples: int) -> float:
    """Epsilon of the whole run and its reserve, at the delta of its terms; an upper bound.

    Where the terms set a target, that is what every release is held against. Infinite where
    nothing is hidden, or the noise comes from a seed.

    Args:
        offer: of the run.
        num_examples: what the site declares, which may not be what the coordinator believes.

    Raises:
        ValueError: naming the field, if the number does not fit the terms, or no price is proved
            or can be computed.
    """
    try:
        return _epsilon_of(offer, num_examples)
    except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError) as error:
        raise ValueError("its numbers are beyond what a price is computed of") from error


def _epsilon_of(offer: Offer, num_examples: int) -> float:
    terms = offer.terms
    choice, training = terms.privacy, terms.training_of(len(offer.participants))
    if not isinstance(choice, ExampleDP | ClientDP) or choice.insecure_seeded_noise:
        return math.inf
    if isinstance(choice, ExampleDP):
        check_batch_size(terms.batch_size, num_examples)
        check_delta(choice.target_delta, num_examples)
    if choice.target_epsilon is not None:
        return choice.target_epsilon
    delta, relation = choice.target_delta, choice.relation
    if isinstance(choice, ClientDP):
        server = server_mechanism(choice, len(offer.participants), training)
        a_round = server.charge()
        assert a_round is not None, "a server that hides clients charges for it"
        rounds = replace(a_round, steps=worst_case_rounds(choice, training.rounds))
        return epsilon([rounds], delta, relation=relation)
    mechanism = client_mechanisms(choice, {"site": num_examples}, training)["site"]
    trained = mechanism.charge(worst_case_steps(choice, training, num_examples))
    assert trained is not None, "a mechanism that hides records charges for it"
    metric = releases(choice, "site", 0).metric
    scored = [metric.charge()] * training.scores if metric else []
    return max(
        epsilon([trained, *beside_training(choice)], delta, relation=relation),
        epsilon(scored, delta, relation=relation),
    )


def limit_of(policy: PrivacyPolicy, offer: Offer, num_examples: int) -> PrivacyBudget | None:
    """What a site holds every release of a run against; None where its records are not hidden here.

    It is the price that was shown to whoever approved the run. Where the terms give the noise and
    no target, a round that is asked for again and again would cost more.

    Args:
        policy: of the site.
        offer: of the run.
        num_examples: what the site declares.

    Raises:
        ValueError: as ``epsilon_of``.
    """
    choice = offer.terms.privacy
    if not isinstance(choice, ExampleDP) or choice.insecure_seeded_noise:
        return None
    most = min(epsilon_of(offer, num_examples), policy.max_epsilon)
    return PrivacyBudget(epsilon=most, delta=choice.target_delta, relation=choice.relation)
