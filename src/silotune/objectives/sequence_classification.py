"""Classification of texts, or of pairs of texts.

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
from .base import HeadInit, Labels, names_of
from .classification import (
    METRICS,
    check_weights,
    derived,
    logits_of,
    measured,
    settle_text_head,
    synthetic,
    weighted_losses,
)
from .guessing import Found, Look, labelled
from .task import Task


def _fits(look: Look) -> bool:
    return any(True for _ in look.called("label", look.may_be_labels()))


def _guess(look: Look, taken: set[str]) -> Found:
    return labelled(look, "text", taken)


TASK = Task(
    name="sequence-classification",
    title="text classification",
    reads="text",
    forms=(frozenset({"text", "label"}), frozenset({"text", "text_pair", "label"})),
    auto="AutoModelForSequenceClassification",
    families="an encoder (bert, roberta, modernbert, deberta-v2) or a decoder "
    "(llama, qwen3, gemma3_text)",
    head=True,
    target="label",
    poolings=("model", "mean"),
    prototypes=True,
    metrics=METRICS,
    metric="accuracy",
    meter="accuracy",
    counts_right=True,
    derive=derived,
    answer=most_probable,
    peft="SEQ_CLS",
    pipeline="text-classification",
    template="classifier",
    usual_model="sentence-transformers/all-MiniLM-L6-v2",
    stand_in="tiny_bert",
    fits=_fits,
    guess=_guess,
    rank=0,
)


@dataclass(frozen=True, kw_only=True)
class SequenceClassification:
    """One label for every text, or pair of texts; ``batch["labels"]`` holds its id, shape (n,).

    Attributes:
        text: column of the text.
        text_pair: column of the second text of a pair.
        label: column of the label.
        labels: the public label set in order of ids; label -> description where a name does not say
            what it means; None: taken from the data once, with a notice.
        class_weights: public; label -> what the loss of its records is multiplied by, 1 if unnamed.
        label_smoothing: share of the label that is spread over all of them.
        max_length: tokens of a text or pair; the rest is cut.
        head: whether the head moves; a trained one is clipped, noised and accounted like a pair.
        head_init: from the seed; from embeddings of what the labels are called or described by,
            which is public; or as the base model brings it. auto: from embeddings where ``pooling``
            is mean and labels are words, else from the seed.
        head_scale: the head is W0 + head_scale V with V trained: smaller makes it slower.
        head_bias: whether the head's bias moves with it, or stays as it began.
        pooling: what the head reads: what the architecture gives it, or the L2-normalised mean of
            the last hidden states.

    Raises:
        ValueError: if a field is out of range, or two of them do not go together.
    """

    facts: ClassVar[Task] = TASK
    task: ClassVar[str] = TASK.name
    constants: ClassVar[Mapping[str, tuple[float, ...]]] = {}
    metric: ClassVar[str] = TASK.metric
    goal: ClassVar[Literal["max", "min"]] = "max"

    text: str
    label: str
    text_pair: str | None = None
    labels: Labels = None
    class_weights: Mapping[str, float] | None = None
    label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0
    max_length: int = 128
    head: Literal["trained", "frozen"] = "trained"
    head_init: HeadInit = "auto"
    head_scale: float = 1.0
    head_bias: Literal["trained", "frozen"] = "trained"
    pooling: Literal["model", "mean"] = "model"

    def __post_init__(self) -> None:
        check_fields(self)
        settle_text_head(self)
        check_weights(self.class_weights, self.labels)

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
