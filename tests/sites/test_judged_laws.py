"""Every field of an offer is judged or harmless for a reason; a new one is refused until it is."""

from __future__ import annotations

import ast
import importlib
import inspect
from dataclasses import dataclass, fields
from inspect import isclass

import pytest

import silotune.site.judged as judged_module
from silotune.federation.offer import Offer
from silotune.methods import Method
from silotune.methods.options import own_options
from silotune.methods.registry import built_in
from silotune.objectives import KINDS as OBJECTIVES
from silotune.objectives import SequenceClassification, is_known
from silotune.optim import SGD, AdamW
from silotune.privacy import ClientDP, ExampleDP, NoDP
from silotune.privacy.choice import PrivacyChoice
from silotune.site import refusal
from silotune.site.judged import HARMLESS, JUDGED, unjudged
from silotune.site.price import epsilon_of
from silotune.site.refusal import OPTIMIZERS, reasons
from silotune.terms import Terms
from sites.offers import NUM_EXAMPLES, offer, policy

KINDS = [Offer, Terms, Method, ExampleDP, ClientDP, NoDP, SGD, AdamW, *OBJECTIVES]


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_stands_in_one_list(kind: type) -> None:
    names = {field.name for field in fields(kind)}
    assert JUDGED[kind] | HARMLESS[kind].keys() == names
    assert not JUDGED[kind] & HARMLESS[kind].keys()
    assert all(HARMLESS[kind].values())


def test_every_choice_of_privacy_is_listed() -> None:
    assert set(JUDGED) == set(HARMLESS) == set(KINDS)
    assert set(PrivacyChoice.__args__) <= set(KINDS)


def test_every_objective_and_optimiser_that_is_let_in_is_listed() -> None:
    assert set(OPTIMIZERS) <= set(KINDS)
    everything = vars(importlib.import_module("silotune.objectives")).values()
    concrete = [kind for kind in everything if isclass(kind) and not is_protocol(kind)]
    known = {kind for kind in concrete if is_known(object.__new__(kind))}
    assert known == set(OBJECTIVES)


def is_protocol(kind: type) -> bool:
    return bool(getattr(kind, "_is_protocol", False))


def test_what_is_called_judged_is_read_where_offers_are_judged() -> None:
    """As an attribute, in the files that judge."""
    modules = [inspect.getmodule(reasons), inspect.getmodule(epsilon_of)]
    read = {
        node.attr
        for module in modules
        for node in ast.walk(ast.parse(inspect.getsource(module)))  # type: ignore[arg-type]
        if isinstance(node, ast.Attribute)
    }
    by_name = {"reserve_rounds"}  # which not every choice has
    priced = {"noise_multiplier"}  # by the mechanism that is made of it
    by_steps = {"local_steps", "local_epochs"}  # of the site's own number of records
    assert "steps_of" in read
    assert frozenset().union(*JUDGED.values()) - read <= by_name | priced | by_steps


def test_options_of_methods_that_are_text_name_files_and_are_refused() -> None:
    texts = {
        (name, option)
        for name, method in built_in().items()
        for option, one in own_options(method).items()
        if "str" in str(one.hint).replace("ForwardRef", "").split("About")[0]
    }
    assert texts == {("mole", "experts"), ("mole", "masked_experts")}
    assert [n for n, m in built_in().items() if m.opened is not Method.opened] == ["mole"]


@pytest.mark.parametrize("kind", [Offer, Terms, Method, ExampleDP, SequenceClassification, SGD])
def test_a_field_that_nobody_has_judged_is_refused(
    kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if it had been added to the class today."""
    known = dict(HARMLESS[kind])
    lost = known.popitem()[0]
    monkeypatch.setattr(judged_module, "HARMLESS", {**HARMLESS, kind: known})
    assert list(unjudged(offer())) == [lost]
    assert refusal(policy(), offer(), NUM_EXAMPLES) == "policy:terms"


def test_terms_with_a_field_more_are_terms_of_somebodys_own() -> None:
    @dataclass(frozen=True, kw_only=True)
    class More(Terms):
        extra: int = 0

    given = offer()
    more = More(**{field.name: getattr(given.terms, field.name) for field in fields(Terms)})
    assert refusal(policy(), offer(more), NUM_EXAMPLES) == "policy:classes"
