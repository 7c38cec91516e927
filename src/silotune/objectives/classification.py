"""What classification of texts and of images has in common: cross entropy, and its scores.

Shapes: n examples, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from silotune.core import Answers, Batch, Derived, generator
from silotune.core.classes import macro_f1, macro_f1_error, pairs_of
from silotune.core.inputs import InputSpec, synthetic_inputs

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
