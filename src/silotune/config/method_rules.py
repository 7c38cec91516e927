"""What the keys of the sections method and train mean together, and what each method refuses.

What a method refuses is not written down here: it is built, and says so itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from silotune.adapters import ResLoRA, Routed
from silotune.recipe import Recipe

from .choice import OPTIONS, chosen_recipe, needs_adamw, refuse_unproved, rule_options
from .errors import Problem
from .method_section import Method
from .privacy_section import Privacy
from .sections import Data, Model, Train

SERVER_KEYS = ("server_learning_rate", "server_momentum")

_KEY = re.compile(r"(?:method|train|privacy)\.\w+(?=: )")
"""The key that a refusal begins with, if it names one."""


def targets(method: Method) -> Iterator[Problem]:
    """Lists that name no layer."""
    for key, value in (
        ("target_modules", method.target_modules),
        ("layers_to_transform", method.layers_to_transform),
    ):
        if value == ():
            yield Problem(f"method.{key}", "the list is empty; fill it or write null")


def optimizers(train: Train) -> Iterator[Problem]:
    """Keys of an optimiser that is not the chosen one."""
    if train.optimizer == "adamw" and train.momentum > 0:
        yield Problem("train.momentum", "belongs to optimizer: sgd; leave it out with adamw")
    if train.server_optimizer == "none":
        for key in SERVER_KEYS:
            if getattr(train, key) is not None:
                yield Problem(
                    f"train.{key}", "belongs to a server_optimizer; choose one or leave this out"
                )
    elif train.server_optimizer != "momentum" and train.server_momentum is not None:
        yield Problem(
            "train.server_momentum", "belongs to server_optimizer: momentum; leave it out"
        )


def method(
    model: Model, method: Method, train: Train, privacy: Privacy | None, data: Data | None
) -> Iterator[Problem]:
    """What the chosen method cannot do with the other keys.

    Args:
        model: says whether there is a head that moves.
        method: its name and options.
        train: brings the optimisers.
        privacy: None if it is unreadable.
        data: likewise.
    """
    wrong = [
        *_head_only(model, method),
        *_experts(method),
        *_options(method),
        *_adamw(method, train),
    ]
    if wrong:
        yield from wrong
        return
    try:
        recipe = chosen_recipe(method, train, head=moving_head(model))
        if privacy:
            correlated = privacy.noise == "correlated"
            refuse_unproved(recipe, privacy.unit, correlated=correlated)
    except ValueError as error:
        yield _problem(method, str(error))
        return
    if isinstance(recipe.adapter, ResLoRA) and not recipe.adapter.merges:
        yield from _caches(model, recipe.adapter)
    if isinstance(recipe.adapter, Routed):
        yield from _routers(model, method, data)
    yield from _steps(method, train, recipe)


def ranks(method: Method, data: Data | None, privacy: Privacy | None) -> Iterator[Problem]:
    """Ranks of silos: whose they are, and where they may differ; what is None is not looked at."""
    if method.ranks is None:
        return
    if not method.ranks:
        yield Problem("method.ranks", "the mapping is empty; fill it or write null")
    declared = data.num_examples if data else None
    strange = method.ranks.keys() - declared.keys() if isinstance(declared, Mapping) else set()
    if isinstance(declared, Mapping) and strange:
        yield Problem(
            "method.ranks",
            f"{', '.join(sorted(strange))} is no silo of data.num_examples, which names "
            f"{', '.join(declared)}",
        )
    if privacy and privacy.unit == "client":
        yield Problem(
            "method.ranks",
            "a client's change cannot be told from what its lower rank cuts off; use one rank for "
            "all under privacy.unit: client",
        )


def moving_head(model: Model) -> bool:
    """Whether a head is trained."""
    return model.task != "causal-lm" and model.head == "trained"


def _head_only(model: Model, method: Method) -> Iterator[Problem]:
    if method.name != "head-only":
        return
    if model.task == "causal-lm":
        yield Problem("method.name", "head-only needs a classification task; use ffa-lora")
    elif model.head != "trained":
        yield Problem("model.head", "must be trained for method.name: head-only, or nothing moves")


def _options(method: Method) -> Iterator[Problem]:
    of_rule = rule_options(method.aggregation) if method.aggregation else ()
    for option, takers in OPTIONS.items():
        if method.name in takers or option in of_rule:
            continue
        if getattr(method, option) is not None:
            yield Problem(
                f"method.{option}",
                f"belongs to {' and '.join(takers)}; leave it out with {method.name}",
            )


def _adamw(method: Method, train: Train) -> Iterator[Problem]:
    if not needs_adamw(method.name):
        return
    if train.optimizer != "adamw" and "optimizer" in train.model_fields_set:
        yield Problem(
            "train.optimizer",
            f"must be adamw for method.name: {method.name}, whose own optimiser is made of it; set "
            "it or leave it out",
        )
    elif train.optimizer != "adamw" and train.momentum > 0:
        yield Problem("train.momentum", f"belongs to optimizer: sgd; {method.name} uses adamw")


def _experts(method: Method) -> Iterator[Problem]:
    if method.name != "mole":
        return
    experts, masked = method.experts or (), method.masked_experts or ()
    if len(experts) < 2:
        yield Problem(
            "method.experts",
            "mole mixes adapters that are trained already; list two of their folders or more",
        )
    elif len(set(experts)) < len(experts):
        yield Problem("method.experts", "a folder is listed twice")
    elif strange := set(masked) - set(experts):
        yield Problem("method.masked_experts", f"{min(strange)} is not among method.experts")
    elif set(masked) == set(experts):
        yield Problem("method.masked_experts", "one expert at least must be left")


def _routers(model: Model, method: Method, data: Data | None) -> Iterator[Problem]:
    """What layers that ask a router cannot do. They look at a record's prompt."""
    if model.task == "causal-lm" and data and data.columns.text:
        yield Problem(
            "data.columns.text",
            f"{method.name} looks at a record's prompt, and a plain text has none: its first token "
            "would decide, the same for all; name prompt and completion, or messages",
        )
    if model.gradient_checkpointing == "reentrant":
        yield Problem(
            "model.gradient_checkpointing",
            f"what the routers of {method.name} add to the loss has no gradient under reentrant; "
            "use non-reentrant",
        )


def _caches(model: Model, adapter: ResLoRA) -> Iterator[Problem]:
    """What layers that keep something for later ones cannot do."""
    if model.gradient_checkpointing != "none":
        yield Problem(
            "model.gradient_checkpointing",
            f"computes layers again, one by one, which the {adapter.shortcut.value} shortcut "
            "cannot follow; set it to none, or method.shortcut to block",
        )


def _steps(method: Method, train: Train, recipe: Recipe) -> Iterator[Problem]:
    """Every phase must have its turn in a round, or what it shares has not moved."""
    needed = max(sum(phase.steps for phase in recipe.schedule.plan(r).phases) for r in (0, 1))
    if train.local_steps < needed:
        yield Problem(
            "train.local_steps",
            f"must be at least {needed} for method.name: {method.name}, which trains one thing "
            "after another",
        )


def _problem(method: Method, reason: str) -> Problem:
    if key := _KEY.match(reason):
        return Problem(key.group(), reason[key.end() + 2 :])
    return Problem("method.name", f"{method.name}: {reason}")
