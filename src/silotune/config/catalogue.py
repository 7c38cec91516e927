"""The catalogue of methods, as far as it can be told in words: by building every one and asking.

Whether a method can be private is answered by the code that would refuse it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from silotune.adapters import LoRA
from silotune.aggregation import Aggregator
from silotune.core import Plan, Role, Site
from silotune.optim import SGD, AdamW
from silotune.recipe import PAIR, IncompatibleAxes, Recipe
from silotune.recipes import RECIPES

from .choice import RULES, options, refuse_unproved, with_rule

WORDS = {Role.A: "A", Role.B: "B", Role.D: "D", Role.GATE: "gate", Role.HEAD: "head"}
"""What a table calls a role."""

UNITS = ("example", "client")
"""Of privacy."""

FACTS = ("Exact", "Noise", "Up", "Down")
"""Lines that every recipe's docstring has."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What there is to say of a method.

    Attributes:
        name: for ``method.name``.
        summary: its name, paper and idea in one line.
        text: more, in paragraphs.
        exact: whether its average is, and by what it is off.
        noise: how privacy noise enters B A.
        up: numbers from a client in a round, for one adapted layer.
        down: numbers to it.
        options: name and default.
        trained: roles, in whatever round.
        shared: likewise.
        trains: the same in words, round after round where they differ.
        sends: likewise.
        basis: what becomes of the basis that A and B are written in.
        ranks_may_differ: between silos.
        refused: unit of privacy -> why, for those that the method refuses.
        aggregations: for ``method.aggregation`` -> the units of privacy (or none) under which the
            method may be combined so; empty where it would be wrong.
    """

    name: str
    summary: str
    text: str
    exact: str
    noise: str
    up: str
    down: str
    options: Mapping[str, object]
    trained: tuple[str, ...]
    shared: tuple[str, ...]
    trains: str
    sends: str
    basis: str
    ranks_may_differ: bool
    refused: Mapping[str, str]
    aggregations: Mapping[str, tuple[str, ...]]


def catalogue() -> list[Entry]:
    """Every method, in the order of the catalogue."""
    return [_entry(name) for name in RECIPES]


def _entry(name: str) -> Entry:
    recipe = RECIPES[name](LoRA(), AdamW(learning_rate=1.0), head=True)
    summary, _, rest = (inspect.getdoc(RECIPES[name]) or "").partition("\n")
    told = rest.partition("\nArgs:")[0].partition("\nRaises:")[0]
    facts = {fact: _fact(told, fact) for fact in FACTS}
    plans = [recipe.schedule.plan(round) for round in (0, 1)]
    rules = {other: RECIPES[other](LoRA(), SGD(learning_rate=1.0), head=True) for other in RULES}
    return Entry(
        name=name,
        summary=summary,
        text=told.partition("\nExact:")[0].strip(),
        exact=facts["Exact"],
        noise=facts["Noise"],
        up=facts["Up"],
        down=facts["Down"],
        options=options(name),
        trained=_named(recipe.trained()),
        shared=_named(frozenset().union(*(plan.share for plan in plans))),
        trains=_in_turn([_words(recipe, plan.trained()) for plan in plans]),
        sends=_in_turn([_words(recipe, plan.share) for plan in plans]),
        basis=_basis(recipe, plans),
        ranks_may_differ=recipe.aggregator.mixes_ranks,
        refused=_refused(recipe),
        aggregations={other: _allowed(recipe, donor.aggregator) for other, donor in rules.items()},
    )


def _fact(told: str, name: str) -> str:
    """The line of a docstring that begins so, and what it runs on into."""
    found = re.search(rf"^{name}: (.+(?:\n(?!\w+: ).+)*)", told, re.MULTILINE)
    assert found, f"a recipe's docstring has a line {name}:"
    return " ".join(found[1].split())


def _refused(recipe: Recipe) -> dict[str, str]:
    return {unit: why for unit in UNITS if (why := _why_not(recipe, unit))}


def _why_not(recipe: Recipe, unit: str) -> str:
    try:
        refuse_unproved(recipe, unit)
    except IncompatibleAxes as error:
        return str(error)
    return ""


def _allowed(recipe: Recipe, rule: Aggregator) -> tuple[str, ...]:
    try:
        refused = _refused(with_rule(recipe, rule))
    except IncompatibleAxes:
        return ()
    return tuple(unit for unit in ("none", *UNITS) if unit not in refused)


def _words(recipe: Recipe, roles: frozenset[Role]) -> str:
    """Roles; of a pair with a projector the one factor that is not it."""
    layer = Site("", nn.Identity(), in_features=1, out_features=2)
    fixed = recipe.adapter.frozen(layer) if recipe.adapter else frozenset[Role]()
    if fixed & roles:
        return ", ".join(["B or A", *_named(roles - PAIR)])
    return ", ".join(_named(roles))


def _named(roles: frozenset[Role]) -> tuple[str, ...]:
    return tuple(word for role, word in WORDS.items() if role in roles)


def _in_turn(words: Sequence[str]) -> str:
    return "; then ".join(dict.fromkeys(words))


def _basis(recipe: Recipe, plans: Sequence[Plan]) -> str:
    if not any(plan.trained() & PAIR for plan in plans):
        return "there is none"
    if any(plan.fold for plan in recipe.schedule.plans()):
        return "a fresh one after every fold"
    return "kept" if recipe.aggregator.keeps_basis else "a new one whenever the server turns it"
