"""A policy allows what it says and nothing else, and one that contradicts itself is none."""

from __future__ import annotations

import math
from typing import Any

import pytest

from silotune.privacy.lifetime.budget import Ceiling
from silotune.site import Policy, PrivacyPolicy, refusal
from sites.offers import NUM_EXAMPLES, offer, policy, privacy

LIFE = Ceiling(epsilon=20.0, delta=1e-5)


def test_a_policy_without_a_word_refuses_everything() -> None:
    nothing = Policy()
    assert refusal(nothing, offer(), NUM_EXAMPLES) == "policy:coordinator"
    assert nothing.approve == "each"
    assert not nothing.accept_result


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_epsilon": -1.0}, "max_epsilon: must be at least 0"),
        ({"max_epsilon": math.nan}, "max_epsilon: must be a finite number"),
        ({"max_epsilon": math.inf}, "max_epsilon: must be a finite number"),
        ({"max_epsilon": True}, "max_epsilon: must be a number"),
        ({"max_epsilon": "6"}, "max_epsilon: must be a number"),
        ({"max_delta": 1.0}, "max_delta: must be below 1"),
        ({"units": ("record",)}, "units: must be"),
        ({"relations": ("any",)}, "relations: must be"),
        ({"noise": ("laplace",)}, "noise: must be"),
        ({"min_other_sites": -1}, "min_other_sites: must be at least 0"),
        ({"min_other_sites": 1.5}, "min_other_sites: must be a whole number"),
        ({"lifetime": Ceiling(epsilon=math.nan, delta=1e-5)}, "lifetime: epsilon must be positive"),
        ({"lifetime": Ceiling(epsilon=20.0, delta=0.0)}, "lifetime: delta must be at least 1e-10"),
    ],
)
def test_privacy_out_of_range(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PrivacyPolicy(**changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_epsilon": 21.0, "lifetime": LIFE}, "max_epsilon: one run may not cost more"),
        ({"max_delta": 1e-4, "lifetime": LIFE}, "max_delta: one run may not cost more"),
        ({"units": ("example", "none"), "lifetime": LIFE}, "lifetime: is counted for unit example"),
        ({"units": ("client",), "lifetime": LIFE}, "take client out of units"),
    ],
)
def test_privacy_that_contradicts_itself(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PrivacyPolicy(**changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"approve": "never"}, "approve: must be one of"),
        ({"approve": "listed"}, "approved: approve: listed needs"),
        ({"approved": ("0" * 64,)}, "approved: is looked at by approve: listed alone"),
        ({"approve": "listed", "approved": ("A" * 64,)}, "approved: an offer is named by its SHA"),
        ({"approve": "listed", "approved": ("abc",)}, "approved: an offer is named by its SHA"),
        ({"methods": ("ffa-lorra",)}, "methods: there is none called ffa-lorra; did you mean ffa"),
        ({"methods": ("os:system",)}, "methods: there is none called os:system"),
        ({"max_rounds": True}, "max_rounds: must be a whole number"),
        ({"max_rounds": -1}, "max_rounds: must be at least 0"),
        ({"max_local_steps": 1e3}, "max_local_steps: must be a whole number"),
        ({"releases": ("histogram",)}, "releases: must be"),
        ({"personal": True}, "personal: must be"),
        ({"accept_result": 1}, "accept_result: must be true or false"),
        ({"privacy": {}}, "privacy: give a PrivacyPolicy"),
    ],
)
def test_a_policy_that_is_none(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Policy(**changes)


def test_the_digest_is_of_every_word() -> None:
    given = policy()
    assert given.digest == policy().digest
    others = [
        policy(max_rounds=99),
        policy(columns=("note",)),
        policy(privacy(max_epsilon=5.0)),
        policy(privacy(lifetime=Ceiling(epsilon=19.0, delta=1e-5))),
        policy(approve="any"),
    ]
    assert len({one.digest for one in [given, *others]}) == len(others) + 1
