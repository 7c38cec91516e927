"""The catalogue of methods, as far as it can be told in words: by building every one and asking.

Whether a method can be private is answered by the code that would refuse it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from silotune.aggregation import Aggregator
from silotune.core import Role, RoundPlan
from silotune.optim import AdamW

from .axes import ANY_SITE, PAIR, Axes, IncompatibleMethodError, refuse_unproved, with_rule
from .base import Method
from .options import own_options
from .registry import built_in, lenders

WORDS = {
    Role.A: "A",
    Role.B: "B",
    Role.D: "D",
    Role.R: "R",
    Role.M: "M",
    Role.GATE: "gate",
    Role.HEAD: "head",
}
"""What a table calls a role."""

UNITS = ("example", "client")
"""Of privacy."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What there is to say of a method.

    Attributes:
        name: for ``method``.
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
        aggregations: for ``aggregation`` -> the units of privacy (or none) under which the
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


def catalogue(methods: Iterable[type[Method]] | None = None) -> list[Entry]:
    """Every method, in the order of the registry.

    Args:
        methods: their classes; None for all of ours.
    """
    return [_entry(method) for method in (built_in().values() if methods is None else methods)]


def _entry(method: type[Method]) -> Entry:
    axes = _plain(method)
    summary, _, rest = (inspect.getdoc(method) or "").partition("\n")
    plans = [axes.schedule.plan(round) for round in (0, 1)]
    rules = {name: lender().aggregator() for name, lender in lenders().items()}
    return Entry(
        name=method.name,
        summary=summary,
        text=rest.partition("\nAttributes:")[0].partition("\nRaises:")[0].strip(),
        exact=method.exact,
        noise=method.noise,
        up=method.up,
        down=method.down,
        options={name: option.default for name, option in own_options(method).items()},
        trained=_named(axes.trained()),
        shared=_named(frozenset().union(*(plan.share for plan in plans))),
        trains=_in_turn([_words(axes, plan.trained()) for plan in plans]),
        sends=_in_turn([_words(axes, plan.share) for plan in plans]),
        basis=_basis(axes, plans),
        ranks_may_differ=axes.aggregator.mixes_ranks,
        refused=_refused(axes),
        aggregations={name: _allowed(axes, rule) for name, rule in rules.items()},
    )


def _plain(method: type[Method]) -> Axes:
    """A method with its defaults, a head and AdamW, of which every method can be made."""
    return method().axes(AdamW(lr=1.0), head=True)


def _refused(axes: Axes) -> dict[str, str]:
    return {unit: why for unit in UNITS if (why := _why_not(axes, unit))}


def _why_not(axes: Axes, unit: str) -> str:
    try:
        refuse_unproved(axes, unit)
    except IncompatibleMethodError as error:
        return str(error)
    return ""


def _allowed(axes: Axes, rule: Aggregator) -> tuple[str, ...]:
    try:
        refused = _refused(with_rule(axes, rule))
    except IncompatibleMethodError:
        return ()
    return tuple(unit for unit in ("none", *UNITS) if unit not in refused)


def _words(axes: Axes, roles: frozenset[Role]) -> str:
    """Roles; of a pair with a projector the one factor that is not it."""
    fixed = axes.adapter.frozen(ANY_SITE) if axes.adapter else frozenset[Role]()
    if fixed & roles:
        return ", ".join(["B or A", *_named(roles - PAIR)])
    return ", ".join(_named(roles))


def _named(roles: frozenset[Role]) -> tuple[str, ...]:
    return tuple(word for role, word in WORDS.items() if role in roles)


def _in_turn(words: Sequence[str]) -> str:
    return "; then ".join(dict.fromkeys(words))


def _basis(axes: Axes, plans: Sequence[RoundPlan]) -> str:
    if not any(plan.trained() & PAIR for plan in plans):
        return "there is none"
    if any(plan.fold for plan in axes.schedule.plans()):
        return "a fresh one after every fold"
    return "kept" if axes.aggregator.keeps_basis else "a new one whenever the server turns it"
