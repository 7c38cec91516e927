"""Floor 3: a method is a point on the axes; combinations that would be wrong are refused here."""

from dataclasses import dataclass, field

from silotune.adapters import Adapter
from silotune.aggregation import Aggregator, Mean
from silotune.core import Role
from silotune.optim import Optimizer
from silotune.schedules import Schedule


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
    optimizer: Optimizer
    adapter: Adapter | None
    aggregator: Aggregator = field(default_factory=Mean)

    def __post_init__(self) -> None:
        plan = self.schedule.plan(0)
        if not plan.share:
            raise IncompatibleAxes("a plan must share something, or the federation learns nothing")
        if not plan.share <= plan.trained():
            frozen = ", ".join(sorted(plan.share - plan.trained()))
            raise IncompatibleAxes(f"sharing what no phase trains only costs traffic: {frozen}")
        if self.adapter is None and plan.trained() & {Role.A, Role.B}:
            raise IncompatibleAxes("the plan trains adapter factors, but there is no adapter")
