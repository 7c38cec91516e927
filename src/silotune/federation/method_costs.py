"""Method costs: what every method sends on a model, counted from the messages that would carry it.

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

from silotune.adapters import Adapter, fixed_keys, initial_factors
from silotune.core import ClientId, Factors, GlobalState, Key, Role, Site
from silotune.engine import Experiment
from silotune.engine.communication import Bytes, traffic
from silotune.methods import Axes, HeadOnly, Method, known
from silotune.models.heads import random_head
from silotune.models.load import load_shape
from silotune.models.target_modules import find_sites
from silotune.optim import AdamW

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
        methods: in the order of the catalogue, without those that have no adapter.
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
    methods = {method: _adapter_of(method, rank, clients) for method in known().values()}
    return Costs(
        methods=tuple(
            _routed_cost(method, sites, clients, rank)
            if adapter.routed
            else _cost(method, list(alike.values()), clients, rank)
            for method, adapter in methods.items()
            if adapter
        ),
        head=_head(hidden, clients, rank),
        layers=dict(shapes),
    )


def _cost(method: type[Method], alike: Sequence[Sequence[Site]], clients: int, rank: int) -> Cost:
    """Of all layers, from messages for one and for two of every shape."""
    first: list[_Weighed] = []
    usual: list[_Weighed] = []
    trained = _trained(method, [site for sites in alike for site in sites])
    for sites in alike:
        one, two = (_counted(method, some, (), clients, rank) for some in _one_and_two(sites[0]))
        layers = sum(site.name in trained for site in sites)
        first.append(_Weighed(one[0], two[0], layers))
        usual.append(_Weighed(one[1], two[1], layers))
    return Cost(method=method.name, first=_of_all(first), usual=_of_all(usual))


def _adapter_of(method: type[Method], rank: int, clients: int) -> Adapter | None:
    return _axes(method, clients, rank, head=True).adapter


def _routed_cost(method: type[Method], sites: Sequence[Site], clients: int, rank: int) -> Cost:
    """From messages for all layers: a router belongs to several of them."""
    first, usual = _counted(method, sites, (), clients, rank)
    return Cost(method=method.name, first=first, usual=usual)


def _trained(method: type[Method], sites: Sequence[Site]) -> set[str]:
    """Names of those that a round trains: all, but for methods that draw some."""
    axes = method().axes(AdamW(lr=1.0), head=False)
    still = axes.schedule.plan(0, [site.name for site in sites]).fixed
    return {site.name for site in sites if Key(site.name, Role.B) not in still}


def _head(hidden: int, clients: int, rank: int) -> Bytes:
    """What one more head adds."""
    head = Site("classifier", nn.Linear(hidden, LABELS, device="meta"), hidden, LABELS)
    one, two = (_counted(HeadOnly, (), h, clients, rank)[1] for h in _one_and_two(head))
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
    method: type[Method], sites: Sequence[Site], heads: Sequence[Site], clients: int, rank: int
) -> tuple[Bytes, Bytes]:
    """The first round and a usual one, from messages."""
    axes = _axes(method, clients, rank, head=bool(heads))
    played = traffic(_experiment(axes, sites, heads, clients), _begun(axes, sites, heads))
    rounds = [of_round[ClientId("0")] for of_round in played]
    turns = rounds[-2:]
    return rounds[0], Bytes(sum(t.up for t in turns) // 2, sum(t.down for t in turns) // 2)


def _axes(method: type[Method], clients: int, rank: int, *, head: bool) -> Axes:
    return method.sample(r=rank, clients=clients).axes(AdamW(lr=1.0), head=head)


def _experiment(
    axes: Axes, sites: Sequence[Site], heads: Sequence[Site], clients: int
) -> Experiment:
    @cache
    def draw(seed: int) -> Factors:
        return initial_factors(sites, axes.adapter, seed).updated(random_head(heads, seed))

    return Experiment(
        run="0" * 12,
        axes=axes,
        weights={ClientId(str(i)): 1.0 for i in range(clients)},
        rounds=ROUNDS,
        local_steps=1,
        seed=0,
        draw=draw,
        quorum=clients,
        private=False,
        fixed=fixed_keys(sites, axes.adapter),
    )


def _begun(axes: Axes, sites: Sequence[Site], heads: Sequence[Site]) -> GlobalState:
    first = initial_factors(sites, axes.adapter, 0).updated(random_head(heads, 0))
    return GlobalState(round=0, factors=first, drawn=dict.fromkeys(first, 0))
