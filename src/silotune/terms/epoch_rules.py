"""Epochs: what can be seen of unequal local steps only where sizes are known."""

from __future__ import annotations

from collections.abc import Mapping

from silotune.core.units import count_text
from silotune.methods.axes import Axes

from .terms import Terms


def check_epochs(terms: Terms, axes: Axes, sizes: Mapping[str, int]) -> None:
    """That whoever declares the fewest records takes the steps that method and schedule need.

    Args:
        terms: with ``local_epochs``, or nothing is looked at.
        axes: of the method.
        sizes: each client's declared number of records.

    Raises:
        ValueError: naming the field.
    """
    if terms.local_epochs is None:
        return
    smallest = min(sizes, key=lambda name: sizes[name])
    steps = terms.steps_of(sizes[smallest])
    needed = max(plan.steps_of_all for plan in axes.schedule.plans())
    if steps < needed:
        raise ValueError(
            f"local_epochs: silo {smallest} would take {count_text(steps, 'step')} in a round, and "
            f"this method trains one thing after another in {needed}; raise it"
        )
    terms.check_warmup(axes, steps)
