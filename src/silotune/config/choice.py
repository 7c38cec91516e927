"""The method that a configuration chooses, as a recipe; combinations that would be wrong end here.

Options of a method are the keyword arguments of its function: the section ``method`` has a key of
the same name for each, and what it is left out of decides the function's default.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from silotune.adapters import Expert, Init, LoRA, MiLoRA
from silotune.aggregation import Aggregator, Mean
from silotune.aggregation.server_optimizer import (
    ServerAdam,
    ServerMomentum,
    ServerOptimizer,
    ServerStep,
    ServerYogi,
)
from silotune.core import Role
from silotune.optim import SGD, AdamW, FedProxConfig, OptimizerConfig
from silotune.recipe import IncompatibleAxes, Recipe
from silotune.recipes import RECIPES
from silotune.schedules import Boost

from .method_section import Method
from .sections import Train


def options(name: str) -> Mapping[str, object]:
    """The options of a method, and their defaults."""
    parameters = inspect.signature(RECIPES[name]).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


OPTIONS: Mapping[str, tuple[str, ...]] = {
    option: tuple(name for name in RECIPES if option in options(name))
    for option in Method.model_fields
    if any(option in options(name) for name in RECIPES)
}
"""Option -> the methods that take it."""

RULES = ("fedex-lora", "flexlora", "lora-fair", "fedsvd")
"""Methods that are a rule and nothing else: others may be combined as they are."""

RULE_OPTIONS = frozenset(
    {"residual_rank", "balanced", "objective", "fair_lambda", "refactor_every", "randomised"}
)
"""Options that decide how the server combines, and nothing else."""


def needs_adamw(name: str) -> bool:
    """Whether a method is made of AdamW and no other optimiser."""
    return inspect.signature(RECIPES[name]).parameters["optimizer"].annotation is AdamW


def chosen_recipe(
    method: Method, train: Train, *, head: bool, experts: Sequence[Expert] = ()
) -> Recipe:
    """The point on the axes that the sections name.

    Args:
        method: its name and options.
        train: brings the optimisers.
        head: whether there is one that moves.
        experts: what the folders in ``method.experts`` hold; empty if only the plan matters.

    Raises:
        ValueError: if a number is out of range.
        IncompatibleAxes: if the combination would be wrong.
    """
    adapter = LoRA(
        rank=largest_rank(method),
        alpha=method.lora_alpha,
        dropout=method.lora_dropout,
        rslora=method.use_rslora,
        init=Init(method.init_lora_weights),
    )
    given = _given(method, options(method.name))
    if method.name == "mole":
        given["experts"] = tuple(experts)
    recipe = RECIPES[method.name](adapter, _optimizer(method, train), head=head, **given)
    if method.aggregation:
        recipe = with_rule(recipe, _rule(method.aggregation, method, adapter))
    if method.ranks and not recipe.aggregator.mixes_ranks:
        raise IncompatibleAxes(
            "method.ranks: this method averages A and B by themselves, and tensors of unequal "
            "shapes have no mean; use flexlora or flora, or one rank for all"
        )
    step = _server_step(train)
    recipe = with_proximal(recipe, train.proximal_mu)
    return with_server(recipe, step) if step else recipe


def largest_rank(method: Method) -> int:
    """The rank of the shared adapter."""
    return max(method.r, *(method.ranks or {}).values(), 1)


def rule_options(name: str) -> tuple[str, ...]:
    """The options of a method that are its rule's."""
    return tuple(key for key in options(name) if key in RULE_OPTIONS)


def with_rule(recipe: Recipe, rule: Aggregator) -> Recipe:
    """The method with another method's rule in place of the plain mean.

    Raises:
        IncompatibleAxes: if it has a rule of its own, or the other one would be wrong there.
    """
    if not isinstance(recipe.aggregator, Mean):
        raise IncompatibleAxes(
            "method.aggregation: this method combines in a way of its own; leave it out"
        )
    try:
        return replace(recipe, aggregator=rule)
    except IncompatibleAxes as error:
        raise IncompatibleAxes(f"method.aggregation: {error}; leave it out") from error


def with_proximal(recipe: Recipe, mu: float) -> Recipe:
    """The method with FedProx's pull (arXiv 1812.06127) in every local step; 0 is none."""
    return replace(recipe, optimizer=FedProxConfig(recipe.optimizer, mu)) if mu else recipe


def with_server(recipe: Recipe, step: ServerStep) -> Recipe:
    """The method with a server's optimiser around its rule.

    Raises:
        IncompatibleAxes: if the method changes the basis that the optimiser's moments live in.
    """
    folds = any(plan.fold for plan in recipe.schedule.plans())
    if folds or not recipe.aggregator.keeps_basis:
        raise IncompatibleAxes(
            "train.server_optimizer: the server's moments live in the basis of A and B, and this "
            "method changes it; use none"
        )
    return replace(recipe, aggregator=ServerOptimizer(inner=recipe.aggregator, step=step))


def refuse_unproved(recipe: Recipe, unit: str, *, correlated: bool = False) -> None:
    """Refuse a method for which a guarantee is not proved, or would be worth nothing.

    Args:
        recipe: the method.
        unit: of privacy: none, example or client.
        correlated: whether noise hangs together over steps (example) or rounds (client).

    Raises:
        IncompatibleAxes: with the reason.
    """
    plans = recipe.schedule.plans()
    if unit == "example" and Role.D in recipe.trained():
        raise IncompatibleAxes(
            "direct averaging of dense deltas under example-level DP is refused: noise would enter "
            "every number of every layer; use fedftg-seeded"
        )
    if unit == "example" and isinstance(recipe.adapter, MiLoRA):
        raise IncompatibleAxes(
            "a router that keeps the best few jumps where two are alike, and the last digits that "
            "decide then depend on the other records of a batch: one record may reroute others, "
            "so clipping does not bound what it changes; use mole, whose gates are smooth"
        )
    if unit == "client" and any(plan.trained() - plan.share for plan in plans):
        raise IncompatibleAxes(
            "client-level privacy covers what is shared, and this method's models are made of what "
            "clients keep as well: whoever sees one sees its client; use privacy.unit: example"
        )
    steps = {phase.roles for plan in plans for phase in plan.phases}
    rounds = {plan.share for plan in plans}
    moving = isinstance(recipe.schedule, Boost) or len(steps if unit == "example" else rounds) > 1
    turning = any(plan.fold for plan in plans) or not recipe.aggregator.keeps_basis
    if correlated and (moving or turning):
        raise IncompatibleAxes(
            "privacy.noise: correlated takes back noise of earlier steps from the same tensors, "
            "and this method trains others in between, or writes them in a new basis; use gaussian"
        )


def _given(method: Method, keys: Iterable[str]) -> dict[str, object]:
    """Options that are set; the others have their defaults."""
    return {key: value for key in keys if (value := getattr(method, key)) is not None}


def _rule(name: str, method: Method, adapter: LoRA) -> Aggregator:
    """How the method of that name combines, with the options that are set."""
    given = _given(method, rule_options(name))
    return RECIPES[name](adapter, SGD(learning_rate=1.0), head=False, **given).aggregator


def _optimizer(method: Method, train: Train) -> OptimizerConfig:
    if train.optimizer == "adamw" or needs_adamw(method.name):
        return AdamW(learning_rate=train.learning_rate, weight_decay=train.weight_decay)
    return SGD(
        learning_rate=train.learning_rate,
        momentum=train.momentum,
        weight_decay=train.weight_decay,
    )


def _server_step(train: Train) -> ServerStep | None:
    """What the server steps with; its papers' numbers where none are given."""
    rate = (
        {} if train.server_learning_rate is None else {"learning_rate": train.server_learning_rate}
    )
    momentum = {} if train.server_momentum is None else {"momentum": train.server_momentum}
    match train.server_optimizer:
        case "none":
            return None
        case "momentum":
            return ServerMomentum(**rate, **momentum)
        case "adam":
            return ServerAdam(**rate)
        case "yogi":
            return ServerYogi(**rate)
