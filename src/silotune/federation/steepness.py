"""Steepness: how far a small step moves what a model says, on texts that anybody knows.

The texts are made of what labels are called or described by. No record is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from statistics import median
from typing import NamedTuple

import torch
from datasets import Dataset

from silotune.core import Batch
from silotune.data.columns import Columns, readable
from silotune.engine.batches import to_device
from silotune.objectives import descriptions
from silotune.objectives.classification import logits_of
from silotune.terms import BuiltModel, Terms

from .inputs import examples_of

ABOUT = ("{}", "This is about {}.", "It says: {}.")
"""How a text says a label."""

MOST = 48
"""Texts that are read; of many labels, those of the first ones."""


class Steepness(NamedTuple):
    """Where training begins.

    Attributes:
        norm: of the gradient of the difference of two labels' logits, in all numbers that a silo
            trains, the head's among them; the median over texts.
        texts: how many.
    """

    norm: float
    texts: int


def steepness(model: BuiltModel, terms: Terms, labels: Sequence[str]) -> Steepness:
    """Measure it: each text's own label against the next one in the list.

    Args:
        model: of the run, as it begins; its tensors are put back to that.
        terms: of the run.
        labels: the public label set.

    Raises:
        ValueError: if a gradient is not finite.
    """
    adapted = model.trainer.adapted
    adapted.load(model.first)
    adapted.model.eval()
    trained = adapted.train_only(model.plan.trained(), model.plan.fixed).values()
    norms = []
    for batch, label in _read(model, terms, labels):
        for tensor in trained:
            tensor.grad = None
        rival = (label + 1) % len(labels)

        def difference(
            module: torch.nn.Module, read: Batch, label: int = label, rival: int = rival
        ) -> torch.Tensor:
            logits = logits_of(module, read)
            return logits[:, label] - logits[:, rival]

        adapted.losses(difference, batch).sum().backward()  # type: ignore[no-untyped-call]
        squares = [float(t.grad.double().square().sum()) for t in trained if t.grad is not None]
        norms.append(math.sqrt(sum(squares)))
    for tensor in trained:
        tensor.grad = None
    if not all(map(math.isfinite, norms)):
        raise ValueError(
            "learning_rate: auto measures gradients where training begins, and this model's are "
            "not finite; give a rate"
        )
    return Steepness(median(norms), len(norms))


def public_texts(labels: Sequence[str], described: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Text and label, every label once before the next way to say it.

    Args:
        labels: names.
        described: what each is called or described by.
    """
    for about in ABOUT:
        for label, words in zip(labels, described, strict=True):
            yield about.format(words), label


def _read(model: BuiltModel, terms: Terms, labels: Sequence[str]) -> Iterator[tuple[Batch, int]]:
    """Each text as a record of its own, and the id of its label."""
    objective = terms.objective
    described = descriptions(objective.labels or labels)
    chosen = list(islice(public_texts(labels, described), MOST))
    parts = {part: str(column) for part, column in objective.columns.items() if part != "label"}
    names = objective.columns["label"]
    rows = [{**dict.fromkeys(parts.values(), text), str(names): own} for text, own in chosen]
    where = "texts made of labels"
    table = readable(Dataset.from_list(rows), Columns.of(objective.columns), labels, where)
    examples = examples_of(terms, table, model.loaded, where)
    device = model.trainer.adapted.device
    for i in range(len(examples.lengths)):
        batch = to_device(examples.batch([i]), device)
        yield batch, int(batch["labels"])
