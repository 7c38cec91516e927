"""For which terms a learning rate can be chosen by rule (``methods.rate_rule``)."""

from __future__ import annotations

from silotune.methods.rate_rule import USUAL, refuse_unruled
from silotune.objectives import SequenceClassification

from .terms import Terms


def refuse_without_rule(terms: Terms) -> None:
    """Refuse terms for which there is no rule; no record is read.

    Raises:
        ValueError: naming the field.
    """
    if not isinstance(terms.objective, SequenceClassification):
        raise ValueError(
            "learning_rate: auto measures how steep the difference of two labels is on texts made "
            f"of what labels are called, and {terms.objective.task} has no such texts; {USUAL}"
        )
    if terms.normalize_steps:
        raise ValueError("normalize_steps: learning_rate: auto has no rule for it; set it to false")
    refuse_unruled(
        terms.axes(head=terms.trains_head),
        terms.unit,
        correlated=terms.privacy.noise == "correlated",
        constant=terms.lr_schedule == "constant",
    )
