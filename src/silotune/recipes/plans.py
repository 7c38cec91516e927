"""What the recipes are put together from: plans of one round, and a recipe that keeps to one."""

from collections.abc import Collection
from dataclasses import replace

from silotune.adapters import (
    Adapter,
)
from silotune.aggregation import Aggregator, Mean
from silotune.core import Phase, Plan, Role
from silotune.optim import (
    AdamW,
    OptimizerConfig,
)
from silotune.recipe import PAIR, IncompatibleAxes, Recipe
from silotune.schedules import Constant


def constant(
    plan: Plan, adapter: Adapter | None, optimizer: OptimizerConfig, rule: Aggregator | None = None
) -> Recipe:
    """The same plan in every round; the mean unless another rule is given."""
    return Recipe(
        schedule=Constant(plan), optimizer=optimizer, adapter=adapter, aggregator=rule or Mean()
    )


def together(roles: Collection[Role], head: bool) -> Plan:
    """Train and share the same roles."""
    moving = with_head(roles, head)
    return Plan(phases=(Phase(roles=moving),), share=moving)


def in_turn(head: bool) -> Plan:
    """B in one local step, A in the next; both are shared."""
    turns = tuple(Phase(roles=with_head({role}, head)) for role in (Role.B, Role.A))
    return replace(together(PAIR, head), phases=turns)


def refuse_all_but_adamw(optimizer: OptimizerConfig, method: str) -> None:
    """For methods whose own optimiser is made of AdamW.

    Raises:
        IncompatibleAxes: if it is given another one.
    """
    if not isinstance(optimizer, AdamW):
        raise IncompatibleAxes(
            f"{method} is an optimiser of its own, made of AdamW: set train.optimizer to adamw"
        )


def with_head(roles: Collection[Role], head: bool) -> frozenset[Role]:
    """The roles, and the head's where it moves."""
    return frozenset({*roles, Role.HEAD} if head else roles)
