"""An offer and a policy that allows it; what a test needs changed is given by name."""

from __future__ import annotations

from typing import Any

from silotune import ExampleDP, SequenceClassification
from silotune.federation.offer import Offer
from silotune.methods import FFALoRA
from silotune.optim import SGD
from silotune.privacy.lifetime.budget import Ceiling
from silotune.site import Policy, PrivacyPolicy
from silotune.terms import Terms

NUM_EXAMPLES = 3900


def terms(**changes: Any) -> Terms:
    given: dict[str, Any] = {
        "model": "some/model",
        "objective": SequenceClassification(text="note", label="label", labels=("a", "b")),
        "optimizer": SGD(lr=0.5),
        "method": FFALoRA(r=4),
        "privacy": ExampleDP(target_epsilon=6.0),
        "evaluation": "site",
        **changes,
    }
    return Terms(**given)


def offer(terms_: Terms | None = None, **changes: Any) -> Offer:
    given: dict[str, Any] = {
        "run": "r1",
        "began": "2026-11-30T10:00:00+00:00",
        "coordinator": "lead",
        "title": "triage of notes",
        "terms": terms_ or terms(),
        "labels": ("a", "b"),
        "base": "0" * 64,
        "base_files": "1" * 64,
        "participants": ("h1", "h2", "h3"),
        "versions": {"silotune": "0.1"},
        **changes,
    }
    return Offer(**given)


def privacy(**changes: Any) -> PrivacyPolicy:
    given: dict[str, Any] = {
        "max_epsilon": 6.0,
        "max_delta": 1e-5,
        "lifetime": Ceiling(epsilon=20.0, delta=1e-5),
        "relations": ("add-remove",),
        "noise": ("gaussian", "discrete"),
        **changes,
    }
    return PrivacyPolicy(**given)


def policy(privacy_: PrivacyPolicy | None = None, **changes: Any) -> Policy:
    given: dict[str, Any] = {
        "coordinator": "lead",
        "privacy": privacy_ or privacy(),
        "methods": ("ffa-lora", "head-only"),
        "max_rounds": 100,
        "max_local_steps": 50,
        **changes,
    }
    return Policy(**given)
