"""Marks: any number of labels on a record, one yes or no for each, whatever is read.

A record's loss is the mean over labels of the binary cross entropies of its outputs.

Shapes: n examples, C labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from silotune.core import Answers, Batch, generator
from silotune.core.inputs import InputSpec, synthetic_inputs

from .base import names_of
from .classification import check_of_labels, check_weights, logits_of, of_labels


def settle_columns(objective: Any) -> None:
    """Columns of 0 and 1 as a tuple, which names the labels where nothing else does.

    Args:
        objective: a frozen dataclass with label and labels.
    """
    if not isinstance(objective.label, str):
        object.__setattr__(objective, "label", tuple(objective.label))
        if objective.labels is None:
            object.__setattr__(objective, "labels", objective.label)


def check_marks(objective: Any, one_label: str) -> None:
    """See that columns, thresholds and weights are of the labels.

    Args:
        objective: its labels are checked.
        one_label: the task that one label is for.

    Raises:
        ValueError: naming the field that is out of range, or does not go with another.
    """
    check_weights(objective.class_weights, objective.labels)
    _check_columns(objective.label, names_of(objective.labels) or (), one_label)
    _check_threshold(objective)


def thresholds(objective: Any) -> dict[str, tuple[float, ...]]:
    """The threshold of each label, or the one of all, by the name of the constant."""
    of_each = isinstance(objective.threshold, Mapping)
    names = names_of(objective.labels) if of_each else None
    return {"threshold": tuple(of_labels(objective.threshold, names or ("all",), 0.5))}


def losses(objective: Any, model: nn.Module, batch: Batch) -> Tensor:
    """(n,) means over labels of binary cross entropies, smoothed and weighted."""
    logits, marks = logits_of(model, batch), batch["labels"]
    smooth = marks * (1 - objective.label_smoothing) + objective.label_smoothing / 2
    weights = None
    if objective.class_weights is not None:
        names = names_of(objective.labels) or ()
        weights = logits.new_tensor(of_labels(objective.class_weights, names, 1.0))
    each = F.binary_cross_entropy_with_logits(
        logits, smooth.to(logits.dtype), pos_weight=weights, reduction="none"
    )
    return each.mean(dim=1)


@torch.no_grad()
def measured(objective: Any, model: nn.Module, batch: Batch) -> Answers:
    """``accuracy``, of records whose labels are all right, and ``loss``; and what was given."""
    logits, marks = logits_of(model, batch), batch["labels"]
    each = F.binary_cross_entropy_with_logits(logits, marks.to(logits.dtype), reduction="none")
    probability, right = logits.sigmoid(), marks > 0.5
    given = probability >= logits.new_tensor(objective.constants["threshold"])
    return Answers(
        totals={"accuracy": (given == right).all(dim=1).double(), "loss": each.mean(dim=1)},
        counts=torch.ones(len(marks), dtype=torch.long),
        kept={"right": right, "given": given, "probability": probability},
    )


def synthetic(spec: InputSpec, lengths: Sequence[int], seed: int) -> Batch:
    """Random examples of these lengths, with each label or without, to try a model on."""
    g = generator(seed, "synthetic")
    inputs = synthetic_inputs(spec, lengths, g)
    marks = torch.randint(2, (len(lengths), spec.num_labels), generator=g)
    return inputs | {"labels": marks.float()}


def _check_columns(label: str | tuple[str, ...], names: Sequence[str], one_label: str) -> None:
    if isinstance(label, str):
        return
    if len(label) < 2:
        raise ValueError(
            f"label: one column of 0 and 1 is one label; use {one_label}, or name two columns or "
            "more"
        )
    if len(label) != len(names):
        raise ValueError(
            f"labels: {len(names)} names for {len(label)} columns; give one for each, in their "
            "order, or leave labels out"
        )


def _check_threshold(objective: Any) -> None:
    given = objective.threshold
    if isinstance(given, Mapping):
        check_of_labels("threshold", given, objective.labels)
    for value in given.values() if isinstance(given, Mapping) else [given]:
        if not (isinstance(value, int | float) and 0 < value < 1):
            raise ValueError(f"threshold: must be between 0 and 1, not {value!r}")
