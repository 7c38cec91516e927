"""Floor 3: a method is a point on the axes; combinations that would be wrong are refused here."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import nn

from silotune.adapters import Adapter, LoRA, Projection
from silotune.aggregation import Aggregator, Mean, Refactor, ServerOptimizer
from silotune.core import Plan, Role, Site
from silotune.optim import OptimizerConfig
from silotune.schedules import Schedule

PAIR = frozenset({Role.A, Role.B})

ANY_SITE = Site("", nn.Identity(), in_features=1, out_features=2)
"""Stands for all, where it is asked what an adapter freezes."""


class IncompatibleAxes(ValueError):
    """A combination that would run and be wrong. Raised when the recipe is built."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A federated fine-tuning method: adapter x schedule x optimiser x aggregator.

    Attributes:
        adapter: None when only the head is trained.

    Raises:
        IncompatibleAxes: with the reason.
    """

    schedule: Schedule
    optimizer: OptimizerConfig
    adapter: Adapter | None
    aggregator: Aggregator = field(default_factory=Mean)

    def __post_init__(self) -> None:
        for plan in self.schedule.plans():
            self._check_plan(plan)
        if self.adapter is None and self.trained() - {Role.HEAD}:
            raise IncompatibleAxes("the plan trains adapter factors, but there is no adapter")
        self._check_pairs()
        self._check_rule()

    def trained(self) -> frozenset[Role]:
        """Every role that some round moves."""
        return frozenset().union(*(plan.trained() for plan in self.schedule.plans()))

    def _check_pairs(self) -> None:
        """That every phase trains of a pair what the optimiser needs."""
        moves = self.optimizer.moves_pairs
        never = self.adapter.frozen(ANY_SITE) if self.adapter else frozenset[Role]()
        for plan in self.schedule.plans():
            if not all(moves.allow(phase.roles - never) for phase in plan.phases):
                raise IncompatibleAxes(f"a pair optimiser needs {moves} in every phase")

    def _check_rule(self) -> None:
        """That the aggregator finds what it combines."""
        outer = self.aggregator
        rule = outer.inner if isinstance(outer, ServerOptimizer) else outer
        name = type(rule).__name__
        alike = all(plan.share >= PAIR for plan in self.schedule.plans())
        if rule.needs_product and not alike:
            raise IncompatibleAxes(
                f"{name} combines products B A, so clients must share both factors in the same "
                "round; where one is common, their mean is exact already"
            )
        if isinstance(rule, Refactor) and self.trained() & PAIR != {Role.B}:
            raise IncompatibleAxes(f"{name} turns pairs of which clients train B and never A")
        of_pairs = rule.needs_product or not rule.keeps_basis
        if of_pairs and not isinstance(self.adapter, LoRA):
            raise IncompatibleAxes(
                f"{name} takes B A for all that is learned at its layer, and here it is not"
            )

    def _check_plan(self, plan: Plan) -> None:
        if not plan.share:
            raise IncompatibleAxes("a plan must share something, or the federation learns nothing")
        if not plan.share <= plan.trained():
            frozen = _words(plan.share - plan.trained())
            raise IncompatibleAxes(f"sharing what no phase trains only costs traffic: {frozen}")
        if plan.fold and (self.adapter is None or not self.adapter.seeded):
            raise IncompatibleAxes(
                "a pair that begins afresh every so often is drawn from a seed: set "
                "method.init_lora_weights to kaiming or orthonormal"
            )
        if plan.fold and plan.trained() - plan.share:
            raise IncompatibleAxes("what a client keeps to itself cannot be folded into the base")
        if plan.fold and Role.D in plan.trained():
            raise IncompatibleAxes("a whole matrix is never full: there is nothing to begin afresh")
        if plan.fold and not isinstance(self.adapter, LoRA | Projection):
            raise IncompatibleAxes(
                "only a pair that serves its own layer alone can be folded into that layer's base"
            )


def _words(roles: Iterable[Role]) -> str:
    return ", ".join(sorted(roles))
