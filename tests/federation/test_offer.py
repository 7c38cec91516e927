"""An offer comes from somebody whom nobody trusts: it is data, and says just what it says."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from silotune import ExampleDP, NoDP
from silotune.federation.offer import LARGEST, Offer, OfferError, is_admitted
from silotune.methods.rates import usual_optimizer
from silotune.methods.registry import built_in
from sites.offers import offer, terms


def test_it_comes_back_as_it_was() -> None:
    given = offer()
    again = Offer.parse(given.to_bytes())
    assert again == given
    assert again.digest == given.digest


@pytest.mark.parametrize("name", list(built_in()))
def test_every_method_can_be_offered(name: str) -> None:
    method = built_in()[name](**{"experts": ("/a", "/b")} if name == "mole" else {})
    optimizer = usual_optimizer(method, NoDP(), None)
    given = offer(terms=terms(method=method, optimizer=optimizer, privacy=NoDP()))
    assert Offer.parse(given.to_bytes()).terms == given.terms


def test_what_is_approved_is_every_word_of_it() -> None:
    given = offer()
    others = [
        offer(run="r2"),
        offer(title="another"),
        offer(participants=("h1", "h3")),
        offer(labels=("b", "a")),
        offer(base="1" * 64),
        offer(terms=terms(local_steps=11)),
        offer(terms=terms(privacy=ExampleDP(target_epsilon=6.5))),
        offer(terms=terms(eval_every=2)),
    ]
    assert len({one.digest for one in [given, *others]}) == len(others) + 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("protocol", 2),
        ("protocol", True),
        ("run", "../../etc"),
        ("run", 3),
        ("coordinator", "a/b"),
        ("title", None),
        ("base", "x"),
        ("base", "A" * 64),
        ("base_files", "short"),
        ("participants", []),
        ("participants", ["b", "a"]),
        ("participants", ["a", "a"]),
        ("participants", ["A", "a"]),
        ("participants", ["../a"]),
        ("participants", "ab"),
        ("labels", [1]),
        ("labels", "ab"),
        ("versions", {"a": 1}),
        ("versions", []),
        ("terms", {}),
        ("terms", None),
        ("terms", {"__class__": "os:system"}),
    ],
)
def test_a_field_that_is_not_what_it_must_be(field: str, value: Any) -> None:
    found = json.loads(offer().to_bytes())
    found[field] = value
    with pytest.raises(OfferError, match="offer") as refused:
        Offer.parse(json.dumps(found, sort_keys=True, ensure_ascii=False).encode())
    assert str(value) not in str(refused.value) or len(str(value)) < 4


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "subprocess:Popen",
        "silotune.federation.federation:Federation",
        "silotune.data.partition:Partition",
        "silotune.runs.folder:RunFolder",
        "silotune.methods.registry:<locals>.X",
        "my_package.my_module:MyMethod",
        "silotune.terms.terms:Terms.x",
    ],
)
def test_no_class_but_the_catalogues_own(name: str) -> None:
    found = json.loads(offer().to_bytes())
    found["terms"]["method"]["__class__"] = name
    with pytest.raises(OfferError, match="terms"):
        Offer.parse(json.dumps(found, sort_keys=True, ensure_ascii=False).encode())
    assert not is_admitted("os:system")


def test_what_was_read_is_what_was_sent() -> None:
    """Two writings of one offer would have two digests; a doubled key two meanings."""
    data = offer().to_bytes()
    for other in (
        data + b" ",
        data.replace(b'"run": "r1"', b'"run": "r0", "run": "r1"'),
        json.dumps(json.loads(data), indent=1).encode(),
    ):
        with pytest.raises(OfferError):
            Offer.parse(other)


@pytest.mark.parametrize(
    "data",
    [b"", b'{"title": "\\ud800"}', b"{}", b"[]", b"\xff", b"[" * 100_000, b"1" * (LARGEST + 1)],
)
def test_what_is_no_offer(data: bytes) -> None:
    with pytest.raises(OfferError):
        Offer.parse(data)


def test_a_privacy_that_is_out_of_range_is_no_offer() -> None:
    for epsilon in (-1.0, "6", True):
        found = json.loads(offer().to_bytes())
        found["terms"]["privacy"]["target_epsilon"] = epsilon
        with pytest.raises(OfferError):
            Offer.parse(json.dumps(found, sort_keys=True, ensure_ascii=False).encode())


def test_a_number_that_python_alone_writes() -> None:
    data = offer().to_bytes().replace(b'"target_epsilon": 6.0', b'"target_epsilon": NaN')
    with pytest.raises(OfferError):
        Offer.parse(data)


def test_a_run_name_is_checked_when_an_offer_is_made() -> None:
    with pytest.raises(OfferError, match="run"):
        replace(offer(), run="")


def test_a_title_that_nothing_can_write() -> None:
    data = offer().to_bytes().replace(b'"triage of notes"', b'"\\ud800"')
    with pytest.raises(OfferError):
        Offer.parse(data)
