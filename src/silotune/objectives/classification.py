"""What classification of texts and of images has in common: cross entropy, and its scores.

Shapes: n examples, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from silotune.core import Answers, Batch, Derived, generator
from silotune.core.classes import macro_f1, macro_f1_error, pairs_of
from silotune.core.inputs import InputSpec, synthetic_inputs

from .base import Labels, check_max_length, checked_labels
from .label_words import NEEDS_WORDS, say_something
from .task import Goal

METRICS: Mapping[str, Goal] = {"accuracy": "max", "loss": "min", "macro_f1": "max"}


@torch.no_grad()
def measured(model: nn.Module, batch: Batch) -> Answers:
    """``accuracy`` and ``loss``, counted in examples; and the classes that were given."""
    logits, labels = logits_of(model, batch), batch["labels"]
    given = logits.argmax(dim=-1)
    return Answers(
        totals={"accuracy": (given == labels).double(), "loss": cross_entropies(logits, labels)},
        counts=torch.ones_like(labels),
        kept={"right": labels, "given": given},
    )


def synthetic(spec: InputSpec, lengths: Sequence[int], seed: int) -> Batch:
    """Random examples of these lengths with random labels, to try a model on."""
    g = generator(seed, "synthetic")
    inputs = synthetic_inputs(spec, lengths, g)
    return inputs | {"labels": torch.randint(spec.num_labels, (len(lengths),), generator=g)}


def logits_of(model: nn.Module, batch: Batch) -> Tensor:
    """(n, C), in float32 at least."""
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    logits: Tensor = model(**inputs).logits
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    """(n,), one for every example."""
    return F.cross_entropy(logits, labels, reduction="none")


def settle_text_head(objective: Any) -> None:
    """Check a head on texts, and say how it begins where that was left open.

    Args:
        objective: a frozen dataclass with labels, max_length, pooling and the fields of a head.

    Raises:
        ValueError: naming the field that is out of range, or does not go with another.
    """
    object.__setattr__(objective, "labels", checked_labels(objective.labels))
    check_max_length(objective.max_length)
    check_head(objective.head_scale)
    if objective.head_init == "auto":
        named = objective.pooling == "mean" and say_something(objective.labels)
        object.__setattr__(objective, "head_init", "label-prototypes" if named else "random")
    if objective.head_init == "label-prototypes":
        if objective.pooling != "mean":
            raise ValueError("head_init: label-prototypes needs pooling: mean; set it")
        if not say_something(objective.labels):
            raise ValueError(f"labels: {NEEDS_WORDS}")


def settle_image_head(objective: Any) -> None:
    """Check a head on images, which begins from the seed where that was left open.

    Args:
        objective: a frozen dataclass with labels and the fields of a head.

    Raises:
        ValueError: naming the field that is out of range.
    """
    object.__setattr__(objective, "labels", checked_labels(objective.labels))
    check_head(objective.head_scale)
    if objective.head_init == "auto":
        object.__setattr__(objective, "head_init", "random")
    if objective.head_init not in ("random", "checkpoint"):
        raise ValueError(
            "head_init: label-prototypes come from a text encoder; use random or checkpoint"
        )


def check_weights(weights: Mapping[str, float] | None, labels: Labels) -> None:
    """See that weights are of labels that are known, and positive.

    Raises:
        ValueError: naming a label.
    """
    if weights is None:
        return
    if not isinstance(weights, Mapping):
        raise ValueError("class_weights: give a mapping of label: weight")
    check_of_labels("class_weights", weights, labels)
    for name, weight in weights.items():
        if not (isinstance(weight, int | float) and 0 < weight < math.inf):
            raise ValueError(f"class_weights: {name} must be a positive number, not {weight!r}")


def check_of_labels(field: str, given: Mapping[str, float], labels: Labels) -> None:
    """See that numbers are of labels that are declared.

    Raises:
        ValueError: naming one that is none.
    """
    if labels is None:
        raise ValueError(f"{field}: goes by the names of labels, so list them in labels")
    strange = [name for name in given if name not in labels]
    if strange:
        raise ValueError(f"{field}: {strange[0]} is no label; there are {', '.join(labels)}")


def of_labels(
    given: float | Mapping[str, float] | None, names: Sequence[str], otherwise: float
) -> list[float]:
    """One number for each label, in order of ids."""
    if isinstance(given, Mapping):
        return [float(given.get(name, otherwise)) for name in names]
    return [otherwise if given is None else float(given)] * len(names)


def weighted_losses(
    logits: Tensor,
    labels: Tensor,
    names: Sequence[str] | None,
    weights: Mapping[str, float] | None,
    smoothing: float,
) -> Tensor:
    """(n,) smoothed cross entropies times the weight of each example's label.

    They are not divided by the weights of a batch, which would let one record change another's.
    """
    losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    if weights is None:
        return losses
    return losses * losses.new_tensor(of_labels(weights, names or (), 1.0))[labels]


def check_head(scale: float) -> None:
    """Refuse a head that does not move, or moves backwards.

    Raises:
        ValueError: if it is not positive.
    """
    if not scale > 0:
        raise ValueError(f"head_scale: must be positive, not {scale}")


def derived(answers: Answers) -> Derived:
    """The mean of F1 over classes, and which classes were taken for which."""
    if "right" not in answers.kept:
        return Derived()
    pairs = pairs_of(answers.kept["right"].tolist(), answers.kept["given"].tolist())
    return Derived(
        metrics={"macro_f1": macro_f1(pairs)},
        errors={"macro_f1": macro_f1_error(pairs)},
        classes=pairs,
    )
