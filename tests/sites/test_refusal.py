"""What a policy does not allow is refused by the key that forbids it, whatever else is asked."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, replace
from typing import Any

import pytest

from silotune import ClientDP, ExampleDP, NoDP, SequenceClassification
from silotune.aggregation import ServerStep
from silotune.aggregation.fedopt import ServerMomentum
from silotune.federation.offer import Offer, OfferError
from silotune.methods import FedIT, FedSALoRA, FFALoRA, FlexLoRA
from silotune.methods.mole import MoLE
from silotune.optim import SGD, AdamW
from silotune.privacy import PrivacyBudget, PrivacyChoice
from silotune.privacy.accounting.accountant import epsilon
from silotune.privacy.mechanisms_from_choice import calibrated
from silotune.site import Policy, PrivacyPolicy, refusal
from silotune.site.price import epsilon_of, limit_of
from silotune.site.refusal import KEYS, reasons
from sites.offers import NUM_EXAMPLES, offer, policy, privacy, terms


def code(given: Offer, rules: Policy | None = None, n: int = NUM_EXAMPLES) -> str | None:
    return refusal(rules or policy(), given, n)


def dp(**changes: Any) -> ExampleDP:
    return ExampleDP(**{"target_epsilon": 6.0, **changes})


@dataclass(frozen=True, kw_only=True)
class Quiet(ExampleDP):
    """A choice that checks nothing, and says what it likes."""

    def __post_init__(self) -> None:
        pass


class Loud(FFALoRA):
    """A method with code of its own."""


class Louder(FlexLoRA):
    """A rule with code of its own."""


@dataclass(frozen=True, kw_only=True)
class Own(SequenceClassification):
    """An objective with losses of its own."""


class Step(ServerMomentum):
    """A server's step of its own."""


class Rate(SGD):
    """An optimiser of its own."""


def test_what_is_allowed_is_allowed() -> None:
    assert code(offer()) is None
    assert list(reasons(policy(), offer(), NUM_EXAMPLES)) == []


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"privacy": dp(target_epsilon=6.1)}, "privacy.max_epsilon"),
        ({"privacy": dp(target_epsilon=math.nextafter(6, 7))}, "privacy.max_epsilon"),
        ({"privacy": dp(target_delta=2e-5)}, "privacy.max_delta"),
        ({"privacy": dp(relation="zero-out")}, "privacy.relations"),
        ({"privacy": dp(noise="correlated", sampling="rotation")}, "privacy.noise"),
        ({"privacy": dp(insecure_seeded_noise=True)}, "privacy.units"),
        ({"privacy": NoDP()}, "privacy.units"),
        ({"privacy": dp(count_noise=50.0)}, "releases"),
        ({"privacy": dp(metric_noise=20.0)}, "releases"),
        ({"privacy": dp(reserve_rounds=101)}, "max_rounds"),
        ({"rounds": 101}, "max_rounds"),
        ({"rounds": 10**15}, "max_rounds"),
        ({"local_steps": 51}, "max_local_steps"),
        ({"local_steps": 10**15}, "max_local_steps"),
        ({"local_steps": None, "local_epochs": 1e15}, "max_local_steps"),
        ({"method": FedIT()}, "methods"),
        ({"method": FFALoRA(init_from="/etc")}, "files"),
        ({"evaluation": "simulation"}, "evaluation"),
        ({"objective": SequenceClassification(text="note", label="label")}, "labels"),
        ({"min_clients": 1}, "privacy.min_other_sites"),
        ({"clients_per_round": 1}, "privacy.min_other_sites"),
        ({"cohort_rate": 0.9}, "privacy.min_other_sites"),
        ({"batch_size": NUM_EXAMPLES + 1}, "privacy.max_epsilon"),
    ],
)
def test_terms_that_are_not_allowed(changes: dict[str, Any], key: str) -> None:
    assert code(offer(terms(**changes))) == f"policy:{key}"
    assert key in KEYS


def test_files_of_a_site_are_named_by_nobody() -> None:
    mixture = MoLE(experts=("/home/other/adapter", "/etc"))
    asked = offer(terms(method=mixture))
    assert code(asked, policy(methods=("mole",))) == "policy:files"


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"coordinator": "Lead"}, "coordinator"),
        ({"coordinator": "lead2"}, "coordinator"),
        ({"coordinator": "l\u0435ad"}, "coordinator"),  # a Cyrillic letter
        ({"labels": ("a", "c")}, "labels"),
        ({"participants": ("h1",)}, "privacy.min_other_sites"),
    ],
)
def test_offers_that_are_not_allowed(changes: dict[str, Any], key: str) -> None:
    assert code(offer(**changes)) == f"policy:{key}"


def test_nobody_is_a_coordinator_where_none_is_named() -> None:
    assert code(offer(), policy(coordinator="")) == "policy:coordinator"


def test_a_larger_quorum_than_sites_hides_nothing() -> None:
    asked = offer(terms(min_clients=5), participants=("h1",))
    assert code(asked) == "policy:privacy.min_other_sites"


def test_tensors_that_stay_are_trained_only_where_that_is_allowed() -> None:
    asked = offer(terms(method=FedSALoRA(), optimizer=SGD(lr=0.5)))
    allowed = {"methods": ("fedsa-lora",)}
    assert code(asked, policy(**allowed)) == "policy:personal"
    assert code(asked, policy(**allowed, personal="keep")) is None


HIDDEN_FROM_NOBODY = {
    "none": {"privacy": NoDP()},
    "client": {
        "privacy": ClientDP(noise_multiplier=1.0, target_delta=1e-5),
        "weighting": "uniform",
    },
    "seeded": {"privacy": ExampleDP(noise_multiplier=1.0, insecure_seeded_noise=True)},
}


@pytest.mark.parametrize("changes", HIDDEN_FROM_NOBODY.values(), ids=HIDDEN_FROM_NOBODY)
def test_where_nobody_looks_no_column_is_carried_away_that_was_not_listed(changes) -> None:
    """A coordinator that is let in for notes names another column, and nothing hides it."""
    rules = privacy(units=("example", "client", "none"), lifetime=None, max_epsilon=1e9)
    asked, open_to_all = offer(terms(**changes)), policy(rules, approve="any")
    assert code(asked, open_to_all) == "policy:columns"
    assert code(asked, policy(rules, approve="any", columns=("diary",))) == "policy:columns"
    assert code(asked, policy(rules)) != "policy:columns", "a person looks"
    read = tuple(asked.terms.objective.columns.values())
    assert code(asked, policy(rules, approve="any", columns=read)) != "policy:columns"
    assert code(offer(), open_to_all) is None, "single records are hidden, whatever is read"


def test_a_column_that_is_not_listed_is_not_read_whoever_looks() -> None:
    assert code(offer(), policy(columns=("diary",))) == "policy:columns"
    read = tuple(offer().terms.objective.columns.values())
    assert code(offer(), policy(columns=read)) is None
    assert code(offer(), policy(columns=read[:1])) == "policy:columns"


def test_the_rule_of_another_method_is_one_that_must_be_allowed() -> None:
    asked = offer(terms(method=FedIT(aggregation=FlexLoRA())))
    assert code(asked, policy(methods=("fedit",))) == "policy:methods"
    assert code(asked, policy(methods=("fedit", "flexlora"))) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"privacy": Quiet(target_epsilon=1.0)},
        {"method": Loud()},
        {"method": FedIT(aggregation=Louder())},
        {"method": FFALoRA().with_(optimizer=AdamW(lr=1.0))},
        {"objective": Own(text="note", label="label", labels=("a", "b"))},
        {"server_optimizer": Step()},
        {"optimizer": Rate(lr=0.5)},
    ],
)
def test_a_class_of_somebodys_own_is_refused_before_it_is_asked_anything(
    changes: dict[str, Any],
) -> None:
    assert code(offer(terms(**changes))) == "policy:classes"


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.0])
@pytest.mark.parametrize(
    ("field", "key"),
    [("target_epsilon", "privacy.max_epsilon"), ("target_delta", "privacy.max_delta")],
)
def test_a_number_that_no_choice_can_hold_does_not_slip_through(
    value: float, field: str, key: str
) -> None:
    """As if an object had been tampered with: a comparison with NaN is false either way."""
    choice, asked = dp(), offer()
    object.__setattr__(choice, field, value)
    object.__setattr__(asked.terms, "privacy", choice)
    assert code(asked) == f"policy:{key}"


@pytest.mark.parametrize("field", ["target_delta", "target_epsilon", "noise_multiplier"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-1.0", "true", '"6"', "0", "-0.0", "1e999"])
def test_numbers_that_are_none_do_not_even_make_an_offer(field: str, value: str) -> None:
    found = json.loads(offer().to_bytes())
    found["terms"]["privacy"][field] = "@"
    data = json.dumps(found, sort_keys=True, ensure_ascii=False).replace('"@"', value).encode()
    with pytest.raises(OfferError):
        Offer.parse(data)


@pytest.mark.parametrize("field", ["rounds", "local_steps", "batch_size", "min_clients"])
@pytest.mark.parametrize("value", [True, 1.0, 0, -1, "2"])
def test_counts_that_are_none_do_not_even_make_an_offer(field: str, value: object) -> None:
    found = json.loads(offer().to_bytes())
    found["terms"][field] = value
    with pytest.raises(OfferError):
        Offer.parse(json.dumps(found, sort_keys=True, ensure_ascii=False).encode())


def test_a_given_noise_is_priced_by_the_accountant_from_the_sites_own_number() -> None:
    """The coordinator may believe in more records than there are, which would look cheaper."""
    choice = ExampleDP(noise_multiplier=0.8)
    asked = offer(terms(privacy=choice, rounds=10, local_steps=5, batch_size=64))
    made = calibrated(choice, sizes={"s": 3900}, batch_size=64, rounds=10, local_steps=5)
    charge = made.clients["s"].charge((10 + 1) * 5)
    assert charge is not None
    cost = epsilon([charge], 1e-5)
    assert epsilon_of(asked, 3900) == pytest.approx(cost)
    enough = policy(privacy(max_epsilon=cost))
    assert code(asked, enough) is None
    assert code(asked, policy(privacy(max_epsilon=math.nextafter(cost, 0)))) is not None
    assert code(asked, enough, n=3800) == "policy:privacy.max_epsilon"


def test_what_is_sent_beside_the_update_is_in_the_price() -> None:
    plain = ExampleDP(noise_multiplier=2.0)
    price = epsilon_of(offer(terms(privacy=plain)), NUM_EXAMPLES)
    counted = replace(plain, count_noise=1.0)
    assert epsilon_of(offer(terms(privacy=counted)), NUM_EXAMPLES) > price + 1
    scored = offer(terms(privacy=replace(plain, metric_noise=2.0)))
    assert epsilon_of(scored, NUM_EXAMPLES) > price + 1
    allowed = policy(privacy(max_epsilon=price), releases=("count", "metric"))
    assert code(scored, allowed) == "policy:privacy.max_epsilon"


def test_noise_that_bounds_nothing_has_an_infinite_price() -> None:
    asked = offer(terms(privacy=ExampleDP(noise_multiplier=1e-6)))
    assert epsilon_of(asked, NUM_EXAMPLES) == math.inf
    assert code(asked) == "policy:privacy.max_epsilon"


def test_a_delta_that_could_publish_a_record_whole() -> None:
    loose = policy(privacy(max_delta=1e-2, lifetime=None, units=("example", "none")))
    asked = offer(terms(privacy=dp(target_delta=1e-3)))
    assert code(asked, loose, n=900) is None
    assert code(asked, loose, n=1000) == "policy:privacy.max_epsilon"


def test_a_policy_that_protects_records_says_what_their_life_may_cost() -> None:
    assert code(offer(), policy(privacy(lifetime=None))) == "policy:privacy.lifetime"


def test_seeded_noise_is_for_sites_that_hide_nothing() -> None:
    seeded = offer(terms(privacy=dp(insecure_seeded_noise=True)))
    rehearsal = policy(privacy(units=("example", "none"), lifetime=None))
    assert code(seeded, rehearsal) is None
    assert code(seeded, policy(privacy(units=("none",), lifetime=None))) == "policy:privacy.units"
    assert code(offer(terms(privacy=NoDP())), rehearsal) is None


def test_hidden_clients_have_the_price_of_the_server() -> None:
    choice = ClientDP(noise_multiplier=4.0, target_delta=1e-5)
    asked = offer(terms(privacy=choice, weighting="uniform", rounds=5))
    rules = {"units": ("client",), "lifetime": None}
    assert code(asked) == "policy:privacy.units"
    cost = epsilon_of(asked, NUM_EXAMPLES)
    assert 1 < cost < 20
    more = offer(replace(asked.terms, privacy=replace(choice, reserve_rounds=5)))
    assert epsilon_of(more, NUM_EXAMPLES) > cost + 0.1
    assert code(asked, policy(privacy(**rules, max_epsilon=cost))) is None
    assert code(asked, policy(privacy(**rules, max_epsilon=0.99 * cost))) == (
        "policy:privacy.max_epsilon"
    )


def test_all_reasons_are_told_to_the_sites_own_people() -> None:
    asked = offer(
        terms(rounds=500, local_steps=70, evaluation="simulation", privacy=dp(target_delta=1e-3)),
        coordinator="other",
    )
    found = [reason.key for reason in reasons(policy(), asked, NUM_EXAMPLES)]
    assert found == [
        "evaluation",
        "coordinator",
        "max_rounds",
        "max_local_steps",
        "privacy.max_delta",
    ]


def test_huge_numbers_are_refused_without_being_counted() -> None:
    choice = ExampleDP(noise_multiplier=1.0, noise="correlated", sampling="rotation")
    asked = offer(terms(rounds=10**18, local_steps=10**18, privacy=choice))
    before = time.process_time()
    found = list(reasons(policy(), asked, NUM_EXAMPLES))
    assert time.process_time() - before < 1.0
    assert {"max_rounds", "max_local_steps"} <= {reason.key for reason in found}


def test_server_steps_of_the_catalogue_are_allowed() -> None:
    step: ServerStep = ServerMomentum()
    assert code(offer(terms(server_optimizer=step))) is None


def test_every_release_is_held_against_what_the_policy_allows() -> None:
    """Also where the terms give the noise: a round asked for twenty times costs twenty rounds."""
    rules = privacy(max_epsilon=6.0)

    def limit(choice: PrivacyChoice, rules: PrivacyPolicy = rules) -> PrivacyBudget | None:
        weighting = "uniform" if isinstance(choice, ClientDP) else "num_examples"
        return limit_of(rules, offer(terms(privacy=choice, weighting=weighting)), NUM_EXAMPLES)

    choice = ExampleDP(noise_multiplier=4.0, target_delta=1e-6)
    priced = epsilon_of(offer(terms(privacy=choice)), NUM_EXAMPLES)
    assert priced < 6.0
    assert limit(choice) == PrivacyBudget(epsilon=priced, delta=1e-6)
    smaller = limit(dp(target_epsilon=2.0, relation="zero-out"))
    assert smaller == PrivacyBudget(epsilon=2.0, delta=1e-5, relation="zero-out")
    tightened = limit(dp(), replace(rules, max_epsilon=1.0))
    assert tightened is not None
    assert tightened.epsilon == 1.0
    assert limit(NoDP()) is None
    assert limit(ClientDP(target_epsilon=6.0)) is None
