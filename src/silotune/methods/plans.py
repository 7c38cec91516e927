"""Plans of one round, which schedules are made of."""

from collections.abc import Collection
from dataclasses import replace

from silotune.core import Phase, Role, RoundPlan

from .axes import PAIR


def together(roles: Collection[Role], head: bool) -> RoundPlan:
    """Train and share the same roles."""
    moving = with_head(roles, head)
    return RoundPlan(phases=(Phase(roles=moving),), share=moving)


def in_turn(head: bool) -> RoundPlan:
    """B in one local step, A in the next; both are shared."""
    turns = tuple(Phase(roles=with_head({role}, head)) for role in (Role.B, Role.A))
    return replace(together(PAIR, head), phases=turns)


def with_head(roles: Collection[Role], head: bool) -> frozenset[Role]:
    """The roles, and the head's where it moves."""
    return frozenset({*roles, Role.HEAD} if head else roles)
