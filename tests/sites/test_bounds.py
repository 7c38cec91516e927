"""Offers with which no site begins: it would never end with them."""

from __future__ import annotations

import importlib
import json
import time
from typing import Any

import pytest

from silotune import ClientDP, ExampleDP
from silotune.federation.offer import Offer, OfferError
from silotune.methods import FFALoRA, FlexLoRA
from silotune.methods.fedex_lora import FedExLoRA
from silotune.methods.fedit import FedIT
from silotune.site import refusal
from silotune.site.refusal import KEYS, reasons
from sites.offers import NUM_EXAMPLES, offer, policy, privacy, terms

CATASTROPHE = r"((\w|\.)+)+[0-9]{9}query"


def code(asked: Offer) -> str | None:
    rules = privacy(noise=("gaussian", "discrete", "correlated"))
    allowed = policy(rules, methods=("ffa-lora", "flexlora", "fedit", "fedex-lora"))
    begun = time.process_time()
    found = refusal(allowed, asked, NUM_EXAMPLES)
    assert time.process_time() - begun < 2.0
    return found


@pytest.mark.parametrize(
    "method",
    [
        FFALoRA(r=10**6),
        FFALoRA(target_modules=CATASTROPHE),
        FFALoRA(target_modules=(CATASTROPHE,)),
        FFALoRA(target_modules="(.*)*(.*)*zzz"),
        FFALoRA(target_modules=("query",) * 1001),
        FFALoRA(target_modules="q" * 1001),
        FFALoRA(layers_to_transform=(10**9,)),
        FlexLoRA(ranks={"h1": 10**6}),
        FedExLoRA(residual_rank=10**6),
        FedIT(aggregation=FedExLoRA(residual_rank=10**6)),
    ],
)
def test_a_method_that_never_ends(method: Any) -> None:
    assert code(offer(terms(method=method))) == "policy:bounds"
    assert "bounds" in KEYS


@pytest.mark.parametrize(
    "method",
    [
        FFALoRA(r=256, target_modules="all-linear"),
        FFALoRA(target_modules=("encoder.layer.0.query", "value"), layers_to_transform=(0, 31)),
        FlexLoRA(ranks={"h1": 4}),
        FedIT(aggregation=FedExLoRA()),
    ],
)
def test_what_people_train_is_within(method: Any) -> None:
    assert code(offer(terms(method=method))) is None


def test_a_seed_may_be_any_number() -> None:
    from silotune.methods.xgblora import XGBLoRA

    asked = offer(terms(method=XGBLoRA(booster_seed=2**60)))
    assert code(asked) == "policy:methods"


def test_more_sites_than_any_federation_has() -> None:
    many = tuple(f"s{i:04}" for i in range(1001))
    assert code(offer(participants=many)) == "policy:bounds"
    assert code(offer(participants=many[:1000])) is None


def test_bands_that_reach_back_further_than_any_run() -> None:
    given = {"noise_multiplier": 1.0, "noise": "correlated", "sampling": "rotation"}
    asked = offer(terms(privacy=ExampleDP(**given, bands=10**8)))
    assert code(asked) == "policy:bounds"


@pytest.mark.parametrize(
    "field", ["target_epsilon", "noise_multiplier", "max_grad_norm", "count_noise", "metric_noise"]
)
@pytest.mark.parametrize("value", [1e308, 1.1e9, 10**400])
def test_a_number_beyond_all_use_makes_no_choice(field: str, value: float) -> None:
    given = {"noise_multiplier": 1.0, field: value}
    if field == "target_epsilon":
        del given["noise_multiplier"]
    with pytest.raises(ValueError, match=f"{field}: must be a positive number of at most 1e"):
        ExampleDP(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [10**10, 10**300, 10**400])
def test_a_count_beyond_all_use_makes_no_choice(value: int) -> None:
    given: dict[str, Any] = {"noise_multiplier": 1.0}
    with pytest.raises(ValueError, match="reserve_rounds: must be at most"):
        ExampleDP(**given, reserve_rounds=value)
    with pytest.raises(ValueError, match="reserve_rounds: must be at most"):
        ClientDP(**given, reserve_rounds=value)
    with pytest.raises(ValueError, match="bands: must be at most"):
        ExampleDP(**given, noise="correlated", sampling="rotation", bands=value)
    truncated: dict[str, Any] = {"relation": "zero-out", "sampling": "truncated-poisson"}
    with pytest.raises(ValueError, match="max_batch_size: must be at most"):
        ExampleDP(**given, **truncated, max_batch_size=value)


@pytest.mark.parametrize("error", [OverflowError, TypeError, RuntimeError, RecursionError])
def test_an_offer_that_cannot_be_judged_is_refused_and_stops_nobody(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fails(*_: object) -> float:
        raise error

    monkeypatch.setattr(importlib.import_module("silotune.site.refusal"), "epsilon_of", fails)
    assert refusal(policy(), offer(), NUM_EXAMPLES) == "policy:terms"


def test_numbers_that_no_accountant_takes_have_no_price(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> float:
        raise OverflowError

    monkeypatch.setattr("silotune.site.price.epsilon", fails)
    asked = offer(terms(privacy=ExampleDP(noise_multiplier=1.0)))
    [reason] = reasons(policy(), asked, NUM_EXAMPLES)
    assert reason.key == "privacy.max_epsilon"
    assert "no price" in reason.text


@pytest.mark.parametrize(
    "name",
    [
        "silotune.methods.base:Enum",
        "silotune.methods.base:Kind.__class__",
        "silotune.objectives.known:Path",
        "silotune.methods.base:Adapter",
    ],
)
def test_a_class_is_named_by_the_place_where_it_is_defined(name: str) -> None:
    """A module has what it imports as well, and that is in no room of the catalogue."""
    found = json.loads(offer().to_bytes())
    found["terms"]["method"] = {"__class__": name, "value": 1}
    with pytest.raises(OfferError, match="terms"):
        Offer.parse(json.dumps(found, sort_keys=True, ensure_ascii=False).encode())
