"""Costs: what every method sends on a model, counted from the messages that would carry it.

Layers of one shape weigh alike: messages for one and for two of them are made, and the rest
follows. Nothing is trained; of the model only shapes are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

from torch import nn

from silotune.adapters import Expert, LoRA, Routed, birth, fixed_keys
from silotune.core import ClientId, Factors, GlobalState, Key, Role, Site
from silotune.engine import Experiment
from silotune.engine.traffic import Bytes, traffic
from silotune.models.head import random_head
from silotune.models.load import load_shape
from silotune.models.sites import find_sites
from silotune.optim import AdamW
from silotune.recipe import Recipe
from silotune.recipes import RECIPES

LABELS = 2
"""Of the head whose weight is shown apart."""

ROUNDS = 4
"""The last two are like all that follow."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Bytes of one client in one round, heads left out.

    Attributes:
        method: its name.
        first: of the first round, in which seeds go down in place of tensors.
        usual: of a later round; the mean of two where rounds take turns.
    """

    method: str
    first: Bytes
    usual: Bytes


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Of every method on one model.

    Attributes:
        methods: in the order of the catalogue, without ``head-only``.
        head: what a head of ``LABELS`` labels adds where it is trained and shared.
        layers: adapted ones, by (out, in).
    """

    methods: tuple[Cost, ...]
    head: Bytes
    layers: dict[tuple[int, int], int]


def costs_on(name_or_path: str, clients: int, rank: int) -> Costs:
    """What every method sends on a model, whose default layers are adapted.

    Args:
        name_or_path: of the model.
        clients: that take part in every round.
        rank: of the adapters.

    Raises:
        ValueError: in words, if the model is of no use or the rank does not fit it.
    """
    model = load_shape(name_or_path)
    hidden: int = model.config.hidden_size  # type: ignore[union-attr, assignment]
    return costs(find_sites(model, None), hidden, clients, rank)


def costs(sites: Sequence[Site], hidden: int, clients: int, rank: int) -> Costs:
    """What every method sends.

    Args:
        sites: the adapted layers.
        hidden: features that a head reads.
        clients: that take part in every round.
        rank: of the adapters.
    """
    shapes = Counter((s.out_features, s.in_features) for s in sites)
    alike = {
        shape: [s for s in sites if (s.out_features, s.in_features) == shape] for shape in shapes
    }
    names = [name for name in RECIPES if name != "head-only"]
    return Costs(
        methods=tuple(
            _routed_cost(name, sites, clients, rank)
            if _is_routed(name)
            else _cost(name, list(alike.values()), clients, rank)
            for name in names
        ),
        head=_head(hidden, clients, rank),
        layers=dict(shapes),
    )


def _cost(name: str, alike: Sequence[Sequence[Site]], clients: int, rank: int) -> Cost:
    """Of all layers, from messages for one and for two of every shape."""
    first: list[_Weighed] = []
    usual: list[_Weighed] = []
    trained = _trained(name, [site for sites in alike for site in sites])
    for sites in alike:
        one, two = (_counted(name, some, (), clients, rank) for some in _one_and_two(sites[0]))
        layers = sum(site.name in trained for site in sites)
        first.append(_Weighed(one[0], two[0], layers))
        usual.append(_Weighed(one[1], two[1], layers))
    return Cost(method=name, first=_of_all(first), usual=_of_all(usual))


def _is_routed(name: str) -> bool:
    recipe = RECIPES[name](LoRA(), AdamW(learning_rate=1.0), head=False)
    return isinstance(recipe.adapter, Routed)


def _routed_cost(name: str, sites: Sequence[Site], clients: int, rank: int) -> Cost:
    """From messages for all layers: a router belongs to several of them."""
    first, usual = _counted(name, sites, (), clients, rank)
    return Cost(method=name, first=first, usual=usual)


def _trained(name: str, sites: Sequence[Site]) -> set[str]:
    """Names of those that a round trains: all, but for methods that draw some."""
    recipe = RECIPES[name](LoRA(), AdamW(learning_rate=1.0), head=False)
    still = recipe.schedule.plan(0, [site.name for site in sites]).fixed
    return {site.name for site in sites if Key(site.name, Role.B) not in still}


def _head(hidden: int, clients: int, rank: int) -> Bytes:
    """What one more head adds."""
    head = Site("classifier", nn.Linear(hidden, LABELS, device="meta"), hidden, LABELS)
    one, two = (_counted("head-only", (), h, clients, rank)[1] for h in _one_and_two(head))
    return Bytes(two.up - one.up, two.down - one.down)


def _one_and_two(site: Site) -> tuple[list[Site], list[Site]]:
    """The layer, and the layer with a twin whose name is as long."""
    return [site], [site, replace(site, name=site.name[:-1] + "_")]


class _Weighed(NamedTuple):
    one: Bytes
    two: Bytes
    layers: int


def _of_all(weighed: Sequence[_Weighed]) -> Bytes:
    """A message without layers, and what each of them adds."""
    one, two, _ = weighed[0]
    up = sum(w.layers * (w.two.up - w.one.up) for w in weighed)
    down = sum(w.layers * (w.two.down - w.one.down) for w in weighed)
    return Bytes(2 * one.up - two.up + up, 2 * one.down - two.down + down)


def _counted(
    name: str, sites: Sequence[Site], heads: Sequence[Site], clients: int, rank: int
) -> tuple[Bytes, Bytes]:
    """The first round and a usual one, from messages."""
    recipe = _recipe(name, clients, rank, head=bool(heads))
    played = traffic(_experiment(recipe, sites, heads, clients), _begun(recipe, sites, heads))
    rounds = [of_round[ClientId("0")] for of_round in played]
    turns = rounds[-2:]
    return rounds[0], Bytes(sum(t.up for t in turns) // 2, sum(t.down for t in turns) // 2)


def _recipe(name: str, clients: int, rank: int, *, head: bool) -> Recipe:
    """The method; where it mixes experts, one of each client."""
    lora, optimizer = LoRA(rank=rank), AdamW(learning_rate=1.0)
    if name != "mole":
        return RECIPES[name](lora, optimizer, head=head)
    experts = tuple(Expert(str(i), {}) for i in range(clients))
    return RECIPES[name](lora, optimizer, head=head, experts=experts)


def _experiment(
    recipe: Recipe, sites: Sequence[Site], heads: Sequence[Site], clients: int
) -> Experiment:
    @cache
    def draw(seed: int) -> Factors:
        return birth(sites, recipe.adapter, seed).updated(random_head(heads, seed))

    return Experiment(
        run="0" * 12,
        recipe=recipe,
        weights={ClientId(str(i)): 1.0 for i in range(clients)},
        rounds=ROUNDS,
        local_steps=1,
        linear_decay=False,
        seed=0,
        draw=draw,
        quorum=clients,
        private=False,
        fixed=fixed_keys(sites, recipe.adapter),
    )


def _begun(recipe: Recipe, sites: Sequence[Site], heads: Sequence[Site]) -> GlobalState:
    first = birth(sites, recipe.adapter, 0).updated(random_head(heads, 0))
    return GlobalState(round=0, factors=first, drawn=dict.fromkeys(first, 0))
