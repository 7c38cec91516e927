"""What a method has and so few rounds or steps never come to, or what is not its own."""

from __future__ import annotations

from collections.abc import Iterator

from silotune.aggregation.fedsvd import Refactor
from silotune.core import Role
from silotune.core.units import count_text
from silotune.methods.axes import Axes
from silotune.methods.fedftg import FedFTG
from silotune.methods.xgblora import XGBLoRA

from .terms import Terms


def notices(terms: Terms, axes: Axes, most_steps: int) -> Iterator[str]:
    """What somebody should know who chose this method for what it never does here.

    Args:
        terms: of the run.
        axes: of the method.
        most_steps: local steps in a round, of whoever takes the most.
    """
    plans = [axes.schedule.plan(round) for round in range(terms.rounds)]
    whole, few = axes.schedule.plans(), count_text(terms.rounds, "round")
    if any(plan.fold for plan in whole) and not any(plan.fold for plan in plans):
        yield (
            f"fold_every: nothing is folded in {few}, so that this is a method without a chain; "
            "lower it, or raise rounds"
        )
    if isinstance(axes.aggregator, Refactor) and axes.aggregator.every > terms.rounds:
        yield (
            f"refactor_every: no pair is turned in {few}, so that A stays as it was drawn; lower "
            "it, or raise rounds"
        )
    if terms.normalize_steps and terms.local_epochs is None:
        yield (
            "normalize_steps: all take the same steps, so that this changes nothing; leave it out, "
            "or give local_epochs"
        )
    method, fresh = terms.method, terms.local_state == "fresh"
    if fresh and isinstance(method, FedFTG) and method.galore_gap > most_steps:
        steps = count_text(most_steps, "step")
        yield (
            f"galore_gap: {method.galore_gap} steps are more than the {steps} of a round, after "
            "which the optimiser begins afresh: every round chooses its subspace once; set "
            "local_state to carried, or lower it"
        )
    if isinstance(method, XGBLoRA) and method.largest_rank > 1:
        yield (
            f"r: {method.largest_rank} is not XGBLoRA's own, whose boosters have rank 1; leave r "
            "and lora_alpha out for those"
        )
    reached = frozenset[Role]().union(*(r for p in plans for r in p.by_step(most_steps)))
    if idle := frozenset[Role]().union(*(plan.trained() for plan in whole)) - reached:
        names = " and ".join(sorted(role.value for role in idle))
        steps = count_text(most_steps, "step")
        yield (
            f"local_steps: {few} of {steps} end before {names} trains, as the phases of this "
            "method come one after the other; raise local_steps, or rounds"
        )
