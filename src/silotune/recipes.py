"""Floor 5: the catalogue. Every method is one function; add a function and the laws cover it."""

from collections.abc import Callable, Mapping

from silotune.adapters import LoRA
from silotune.core import Phase, Plan, Role
from silotune.optim import Optimizer
from silotune.recipe import IncompatibleAxes, Recipe
from silotune.schedules import Constant


def ffa_lora(adapter: LoRA, optimizer: Optimizer, *, head: bool) -> Recipe:
    """FFA-LoRA (Sun et al. 2024, arXiv 2403.12313): freeze A, train and average B.

    Averaging is exact, privacy noise enters linearly, and half of LoRA's numbers travel.
    """
    return _constant({Role.B}, adapter, optimizer, head=head)


def fedit(adapter: LoRA, optimizer: Optimizer, *, head: bool) -> Recipe:
    """FedIT (Zhang et al. 2024, arXiv 2305.05644): train both factors, average each by itself.

    The mean of products is not the product of means: the aggregation error is reported.
    """
    return _constant({Role.A, Role.B}, adapter, optimizer, head=head)


def head_only(adapter: LoRA, optimizer: Optimizer, *, head: bool) -> Recipe:
    """The linear probe: train and average the head alone. The baseline to beat.

    Raises:
        IncompatibleAxes: if the head is frozen, since nothing is left to train.
    """
    if not head:
        raise IncompatibleAxes("method head-only trains the head: set model.head to trained")
    return _constant(set(), None, optimizer, head=True)


RECIPES: Mapping[str, Callable[..., Recipe]] = {
    "ffa-lora": ffa_lora,
    "fedit": fedit,
    "head-only": head_only,
}


def _constant(
    roles: set[Role], adapter: LoRA | None, optimizer: Optimizer, *, head: bool
) -> Recipe:
    """Train and share the same roles in every round."""
    moving = frozenset(roles | {Role.HEAD} if head else roles)
    plan = Plan(phases=(Phase(roles=moving),), share=moving)
    return Recipe(schedule=Constant(plan), optimizer=optimizer, adapter=adapter)
