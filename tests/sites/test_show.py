"""What is shown of an offer is all that matters, plainly, and nothing that the offer could hide."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from silotune import ClientDP, ExampleDP, NoDP
from silotune.core.plain import MOST, plain
from silotune.federation.offer import LARGEST, Offer, OfferError
from silotune.federation.records import Records
from silotune.methods import FedSALoRA
from silotune.optim import SGD
from silotune.site import OwnSite, Policy
from silotune.site.home import Home
from silotune.site.show import Shown, shown
from silotune.terms import Machine
from sites.offers import NUM_EXAMPLES, offer, policy, privacy, terms


def own(rules: Policy | None = None, **changes: Any) -> OwnSite:
    given: dict[str, Any] = {
        "name": "h1",
        "records": Records(clients={"h1": Path("/data")}, num_examples={"h1": NUM_EXAMPLES}),
        "home": Path("/home"),
        "models": {},
        "machine": Machine(),
        "policy": rules or policy(),
        **changes,
    }
    return OwnSite(**given)


def show(given: Offer, rules: Policy | None = None, said=None) -> Shown:
    return shown(own(rules), given, said, [])


def text(found: Shown, heading: str = "") -> str:
    return "\n".join(
        line for section in found.sections if heading in section.heading for line in section.lines
    )


def test_everything_that_a_person_decides_by_is_there() -> None:
    found = show(offer())
    whole = text(found)
    for told in (
        "lead, whose key this site does not have",
        "triage of notes",
        "by the coordinator's word: h2, h3",
        "A is public and stays frozen; B is trained and averaged",
        "trained here: B, head",
        "20 rounds of 10 steps, each on about 128 records of 3,900",
        "text from note",
        "blurred by noise here",
        "nothing else: no record",
        "epsilon at most 6.00 at delta 1e-5, for one record at one silo",
        "one is the other plus one record",
        "discrete",
        "none is in this site's book",
        "at most 20.00 at delta 1e-5",
        "not written into this site's folder",
        "the policy allows it",
        f"silotune site approve r1 --digest {offer().digest[:16]}",
        offer().digest,
        policy().digest,
    ):
        assert told in whole, told
    assert (found.epsilon, found.delta, found.refused) == (6.0, 1e-5, ())


def test_a_given_noise_is_told_with_what_it_costs_here() -> None:
    choice = ExampleDP(noise_multiplier=0.7)
    found = show(offer(terms(privacy=choice)))
    assert 6 < found.epsilon < 30
    assert "multiplier 0.7" in text(found)
    assert [reason.key for reason in found.refused] == ["privacy.max_epsilon"]
    assert "refused by policy.privacy.max_epsilon: the run costs epsilon" in text(found)


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        (NoDP(), "AS THEY ARE: nothing hides"),
        (ExampleDP(target_epsilon=1.0, insecure_seeded_noise=True), "AS THEY ARE: nothing hides"),
        (ClientDP(target_epsilon=6.0), "AS THEY ARE: the coordinator is trusted"),
    ],
)
def test_what_leaves_unhidden_is_said_loudly(choice: Any, told: str) -> None:
    weighting = "uniform" if isinstance(choice, ClientDP) else "num_examples"
    found = show(offer(terms(privacy=choice, weighting=weighting)))
    assert told in text(found, "what leaves")
    assert "blurred by noise here" not in text(found)
    assert ("NOT PRIVATE" in text(found, "costs")) == (not isinstance(choice, ClientDP))
    assert "refused by policy.privacy.units" in text(found)


def test_releases_are_told_with_their_noise() -> None:
    choice = ExampleDP(target_epsilon=6.0, count_noise=50.0, metric_noise=20.0)
    leaves = text(show(offer(terms(privacy=choice, eval_every=3))), "what leaves")
    assert "once, the number of training records, with noise of 50 records" in leaves
    assert "after each of 7 scored rounds" in leaves
    assert "noise of 20 records" in leaves
    assert "held-out records that it declares, none" in leaves


def test_what_never_leaves_is_told() -> None:
    asked = offer(terms(method=FedSALoRA(), optimizer=SGD(lr=0.5)))
    found = show(asked)
    assert "trained here: A, B, head; B, head never leave" in text(found)
    assert "the trained tensors (A)," in text(found, "what leaves")


def test_whether_the_base_is_here_and_the_result_is_taken() -> None:
    there = own(policy(accept_result=True), models={"1" * 64: Path("/models/mini")})
    whole = text(shown(there, offer(), None, []))
    assert "which is here; it stays frozen" in whole
    assert "it is also written into this site's folder" in whole


def test_a_site_that_is_not_asked_and_one_that_is_alone() -> None:
    assert "this site, h1, is not among those who are asked" in text(
        show(offer(participants=("h2", "h3")))
    )
    assert "word: nobody" in text(show(offer(participants=("h1",))))


def test_an_altered_offer_is_told_from_the_one_that_was_approved(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    said = Home(tmp_path).decide(offer(), "approved")
    assert "approved 20" in text(show(offer(), said=said), "this site says")
    found = show(offer(terms(rounds=21)), said=said)
    assert "ALTERED: what was approved" in text(found)
    assert found.hindrance == "approval"
    refused = show(offer(), said=Home(tmp_path).decide(offer(), "refused"))
    assert "refused by a person" in text(refused)


def test_huge_numbers_are_shown_without_being_counted() -> None:
    choice = ExampleDP(noise_multiplier=1.0, metric_noise=1.0)
    found = show(offer(terms(rounds=10**18, privacy=choice)))
    assert math.isnan(found.epsilon)
    assert "epsilon not computed" in text(found)


EVIL = "\x1b[2J\x1b]0;owned\x07\r\n\u202efdp\u2066\u200b\u2028\x9b31m\x00" + "a\u0301\u0302" * 9


def test_no_text_of_an_offer_reaches_a_terminal_as_it_is() -> None:
    method = terms().method
    object.__setattr__(method, "target_modules", (EVIL,))
    given = offer(
        terms(model=EVIL, method=method),
        title=EVIL * 1000,
        began=EVIL,
        labels=("a", "b"),
        versions={EVIL: EVIL},
    )
    found = show(given)
    for line in [text(found), found.title, *(line for s in found.sections for line in s.lines)]:
        assert all(c.isprintable() for c in line.replace("\n", ""))
        assert "\u0302" not in line
    assert len(found.title) < MOST + 50
    assert "more characters" in found.title


def test_labels_and_columns_are_shown_plainly() -> None:
    objective = type(terms().objective)(text=EVIL, label="label", labels=("a\x1b[2J", "b"))
    given = offer(terms(objective=objective), labels=("a\x1b[2J", "b"))
    assert "\x1b" not in text(show(given))


def test_ten_megabytes_of_title_make_no_offer() -> None:
    with pytest.raises(OfferError, match="too large"):
        Offer.parse(offer(title="x" * 10 * LARGEST).to_bytes())


def test_an_offer_of_another_coordinator_is_told_letter_by_letter() -> None:
    found = show(offer(coordinator="l\u0435ad"))
    assert "'l\\u0435ad' asks" in text(found, "this site says")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("plain words", "plain words"),
        ("Klinik Mu\u0308nchen", "Klinik M\u00fcnchen"),
        ("\u4e2d\u6587 \U0001f600", "\u4e2d\u6587 \U0001f600"),
        ("a\tb\nc", "a?b?c"),
        ("\ud800", "?"),
        ("a\u0302\u0302b", "\u00e2?b"),
        ("\u202eabc", "?abc"),
        ("x" * 201, "x" * 200 + "... (1 more characters)"),
    ],
)
def test_plain(given: str, wanted: str) -> None:
    assert plain(given) == wanted


def test_a_policy_without_a_limit_for_life_says_so() -> None:
    found = show(offer(), policy(privacy(lifetime=None)))
    assert "this site has no limit" in text(found)
