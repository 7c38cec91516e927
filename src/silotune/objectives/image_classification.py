"""Classification of images.

Shapes: n examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Lt
from torch import Tensor, nn

from silotune.core import Answers, Batch
from silotune.core.fields import check_fields
from silotune.core.inputs import InputSpec

from .answers import most_probable
from .base import Labels, names_of
from .classification import (
    METRICS,
    check_weights,
    derived,
    logits_of,
    measured,
    settle_image_head,
    synthetic,
    weighted_losses,
)
from .guessing import Found, Look, labelled
from .task import Task


def _fits(look: Look) -> bool:
    return bool(look.images())


def _guess(look: Look, taken: set[str]) -> Found:
    return labelled(look, "image", taken)


TASK = Task(
    name="image-classification",
    title="image classification",
    reads="image",
    forms=(frozenset({"image", "label"}),),
    auto="AutoModelForImageClassification",
    families="an encoder of images (vit, swin, convnext)",
    head=True,
    target="label",
    metrics=METRICS,
    metric="accuracy",
    meter="accuracy",
    counts_right=True,
    derive=derived,
    answer=most_probable,
    peft=None,
    pipeline="image-classification",
    template="images",
    usual_model="google/vit-base-patch16-224-in21k",
    stand_in="tiny_vit",
    fits=_fits,
    guess=_guess,
    rank=1,
)


@dataclass(frozen=True, kw_only=True)
class ImageClassification:
    """One label for every image; ``batch["labels"]`` holds its id, shape (n,).

    Attributes:
        image: column of images, or of the bytes of JPEG or PNG files.
        label: column of the label.
        labels: the public label set in order of ids; None: taken from the data once.
        class_weights: public; label -> what the loss of its records is multiplied by, 1 if unnamed.
        label_smoothing: share of the label that is spread over all of them.
        head: whether the head moves.
        head_init: from the seed (``auto`` too), or as the base model brings it.
        head_scale: the head is W0 + head_scale V with V trained: smaller makes it slower.
        head_bias: whether the head's bias moves with it, or stays as it began.

    Raises:
        ValueError: if a field is out of range.
    """

    facts: ClassVar[Task] = TASK
    task: ClassVar[str] = TASK.name
    constants: ClassVar[Mapping[str, tuple[float, ...]]] = {}
    metric: ClassVar[str] = TASK.metric
    goal: ClassVar[Literal["max", "min"]] = "max"
    pooling: ClassVar[Literal["model", "mean"]] = "model"

    image: str
    label: str
    labels: Labels = None
    class_weights: Mapping[str, float] | None = None
    label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0
    max_length: int = 128
    head: Literal["trained", "frozen"] = "trained"
    head_init: Literal["auto", "random", "checkpoint"] = "auto"
    head_scale: float = 1.0
    head_bias: Literal["trained", "frozen"] = "trained"

    def __post_init__(self) -> None:
        check_fields(self)
        settle_image_head(self)
        check_weights(self.class_weights, self.labels)

    @property
    def columns(self) -> Mapping[str, str]:
        """Image and label."""
        return {"image": self.image, "label": self.label}

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """In order of ids; None if only the data can tell."""
        return names_of(self.labels)

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """(n,) cross entropies, smoothed and weighted."""
        return weighted_losses(
            logits_of(model, batch),
            batch["labels"],
            self.label_names,
            self.class_weights,
            self.label_smoothing,
        )

    def measure(self, model: nn.Module, batch: Batch) -> Answers:
        """``accuracy`` and ``loss``, counted in examples; and the classes that were given."""
        return measured(model, batch)

    def synthetic(self, spec: InputSpec, lengths: Sequence[int], seed: int) -> Batch:
        """Random examples of these lengths with random labels, to try a model on."""
        return synthetic(spec, lengths, seed)
