"""Classification of texts or images: cross entropy, one loss for every example.

Shapes: n examples, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from silotune.core import Answers, Batch, generator
from silotune.core.fields import check_fields
from silotune.core.inputs import InputSpec, synthetic_inputs

from .base import HeadInit, Labels, TaskName, check_max_length, checked_labels, names_of
from .label_words import NEEDS_WORDS, say_something


@dataclass(frozen=True, kw_only=True)
class SequenceClassification:
    """One label for every text, or pair of texts; ``batch["labels"]`` holds its id, shape (n,).

    Attributes:
        text: column of the text.
        text_pair: column of the second text of a pair.
        label: column of the label.
        labels: the public label set in order of ids; label -> description where a name does not say
            what it means; None: taken from the data once, with a notice.
        max_length: tokens of a text or pair; the rest is cut.
        head: whether the head moves; a trained one is clipped, noised and accounted like a pair.
        head_init: from the seed; from embeddings of what the labels are called or described by,
            which is public; or as the base model brings it. auto: from embeddings where ``pooling``
            is mean and labels are words, else from the seed.
        head_scale: the head is W0 + head_scale V with V trained: smaller makes it slower.
        pooling: what the head reads: what the architecture gives it, or the L2-normalised mean of
            the last hidden states.

    Raises:
        ValueError: if a field is out of range, or two of them do not go together.
    """

    task: ClassVar[TaskName] = "sequence-classification"
    metric: ClassVar[str] = "accuracy"
    goal: ClassVar[Literal["max", "min"]] = "max"

    text: str
    label: str
    text_pair: str | None = None
    labels: Labels = None
    max_length: int = 128
    head: Literal["trained", "frozen"] = "trained"
    head_init: HeadInit = "auto"
    head_scale: float = 1.0
    pooling: Literal["model", "mean"] = "model"

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "labels", checked_labels(self.labels))
        check_max_length(self.max_length)
        _check_head(self.head_scale)
        if self.head_init == "auto":
            named = self.pooling == "mean" and say_something(self.labels)
            object.__setattr__(self, "head_init", "label-prototypes" if named else "random")
        if self.head_init == "label-prototypes":
            if self.pooling != "mean":
                raise ValueError("head_init: label-prototypes needs pooling: mean; set it")
            if not say_something(self.labels):
                raise ValueError(f"labels: {NEEDS_WORDS}")

    @property
    def columns(self) -> Mapping[str, str]:
        """Text, pair and label."""
        pair = {} if self.text_pair is None else {"text_pair": self.text_pair}
        return {"text": self.text, **pair, "label": self.label}

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """In order of ids; None if only the data can tell."""
        return names_of(self.labels)

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """(n,) cross entropies."""
        return _losses(_logits(model, batch), batch["labels"])

    def measure(self, model: nn.Module, batch: Batch) -> Answers:
        """``accuracy`` and ``loss``, counted in examples; and the classes that were given."""
        return _measured(model, batch)

    def synthetic(self, spec: InputSpec, lengths: Sequence[int], seed: int) -> Batch:
        """Random examples of these lengths with random labels, to try a model on."""
        return _synthetic(spec, lengths, seed)


@dataclass(frozen=True, kw_only=True)
class ImageClassification:
    """One label for every image; ``batch["labels"]`` holds its id, shape (n,).

    Attributes:
        image: column of images, or of the bytes of JPEG or PNG files.
        label: column of the label.
        labels: the public label set in order of ids; None: taken from the data once.
        head: whether the head moves.
        head_init: from the seed (``auto`` too), or as the base model brings it.
        head_scale: the head is W0 + head_scale V with V trained: smaller makes it slower.

    Raises:
        ValueError: if a field is out of range.
    """

    task: ClassVar[TaskName] = "image-classification"
    metric: ClassVar[str] = "accuracy"
    goal: ClassVar[Literal["max", "min"]] = "max"
    pooling: ClassVar[Literal["model", "mean"]] = "model"

    image: str
    label: str
    labels: Labels = None
    max_length: int = 128
    head: Literal["trained", "frozen"] = "trained"
    head_init: Literal["auto", "random", "checkpoint"] = "auto"
    head_scale: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "labels", checked_labels(self.labels))
        _check_head(self.head_scale)
        if self.head_init == "auto":
            object.__setattr__(self, "head_init", "random")
        if self.head_init not in ("random", "checkpoint"):
            raise ValueError(
                "head_init: label-prototypes come from a text encoder; use random or checkpoint"
            )

    @property
    def columns(self) -> Mapping[str, str]:
        """Image and label."""
        return {"image": self.image, "label": self.label}

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """In order of ids; None if only the data can tell."""
        return names_of(self.labels)

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """(n,) cross entropies."""
        return _losses(_logits(model, batch), batch["labels"])

    def measure(self, model: nn.Module, batch: Batch) -> Answers:
        """``accuracy`` and ``loss``, counted in examples; and the classes that were given."""
        return _measured(model, batch)

    def synthetic(self, spec: InputSpec, lengths: Sequence[int], seed: int) -> Batch:
        """Random examples of these lengths with random labels, to try a model on."""
        return _synthetic(spec, lengths, seed)


@torch.no_grad()
def _measured(model: nn.Module, batch: Batch) -> Answers:
    logits, labels = _logits(model, batch), batch["labels"]
    given = logits.argmax(dim=-1)
    return Answers(
        totals={"accuracy": (given == labels).double(), "loss": _losses(logits, labels)},
        counts=torch.ones_like(labels),
        right=labels,
        given=given,
    )


def _synthetic(spec: InputSpec, lengths: Sequence[int], seed: int) -> Batch:
    g = generator(seed, "synthetic")
    inputs = synthetic_inputs(spec, lengths, g)
    return inputs | {"labels": torch.randint(spec.num_labels, (len(lengths),), generator=g)}


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    """(n, C), in float32 at least."""
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    logits: Tensor = model(**inputs).logits
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


def _check_head(scale: float) -> None:
    if not scale > 0:
        raise ValueError(f"head_scale: must be positive, not {scale}")


def counts_right_answers(objective: object) -> bool:
    """Whether ``measure`` is known to count at most one right answer a record.

    One record then moves the count by 1, which the noise on a score is made for. A class of
    somebody's own may measure anything, and so may one that inherits from these.
    """
    return type(objective) in (SequenceClassification, ImageClassification)
