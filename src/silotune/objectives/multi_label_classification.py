"""Classification of texts that have any number of labels each: one yes or no for every label.

Shapes: n examples, C labels.
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

from . import marks
from .answers import likely
from .base import HeadInit, Labels, names_of
from .classification import settle_text_head
from .guessing import Found, Look, marked
from .label_scores import METRICS, derived
from .task import Task


def _fits(look: Look) -> bool:
    return any(True for _ in look.called("label", look.lists()))


def _guess(look: Look, taken: set[str]) -> Found:
    return marked(look, look.lists(), taken)


TASK = Task(
    name="multi-label-classification",
    title="text classification with several labels",
    reads="text",
    forms=(frozenset({"text", "label"}), frozenset({"text", "text_pair", "label"})),
    auto="AutoModelForSequenceClassification",
    families="an encoder (bert, roberta, modernbert, deberta-v2) or a decoder "
    "(llama, qwen3, gemma3_text)",
    head=True,
    target="labels",
    poolings=("model", "mean"),
    prototypes=True,
    problem="multi_label_classification",
    metrics=METRICS,
    metric="micro_f1",
    meter="loss",
    counts_right=True,
    derive=derived,
    answer=likely,
    peft="SEQ_CLS",
    pipeline="text-classification",
    template="classifier",
    usual_model="sentence-transformers/all-MiniLM-L6-v2",
    stand_in="tiny_bert",
    fits=_fits,
    guess=_guess,
    rank=3,
)


@dataclass(frozen=True, kw_only=True)
class MultiLabelClassification:
    """Any number of labels for every text; ``batch["labels"]`` holds 0 and 1, (n, C) float32.

    A record's loss is the mean over labels of the binary cross entropies of its outputs.

    Attributes:
        text: column of the text.
        text_pair: column of the second text of a pair.
        label: column of lists of labels, which may be empty; or one column of 0 and 1 for each
            label, in order of ids.
        labels: the public label set in order of ids; label -> description where a name does not say
            what it means; None: the names of the columns, or taken from the data once.
        threshold: public; the probability from which a label is given, one for all, or by label,
            0.5 where it is not named.
        class_weights: public; label -> what its loss is multiplied by on records that have it.
        label_smoothing: share of each 0 and 1 that is replaced by a half.
        max_length: tokens of a text or pair; the rest is cut.
        head: whether the head moves; a trained one is clipped, noised and accounted like a pair.
        head_init: as of ``SequenceClassification``.
        head_scale: the head is W0 + head_scale V with V trained: smaller makes it slower.
        head_bias: whether the head's bias moves with it, or stays as it began.
        pooling: what the head reads: what the architecture gives it, or the L2-normalised mean of
            the last hidden states.

    Raises:
        ValueError: if a field is out of range, or two of them do not go together.
    """

    facts: ClassVar[Task] = TASK
    task: ClassVar[str] = TASK.name
    metric: ClassVar[str] = TASK.metric
    goal: ClassVar[Literal["max", "min"]] = "max"

    text: str
    label: str | tuple[str, ...]
    text_pair: str | None = None
    labels: Labels = None
    threshold: float | Mapping[str, float] = 0.5
    class_weights: Mapping[str, float] | None = None
    label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0
    max_length: int = 128
    head: Literal["trained", "frozen"] = "trained"
    head_init: HeadInit = "auto"
    head_scale: float = 1.0
    head_bias: Literal["trained", "frozen"] = "trained"
    pooling: Literal["model", "mean"] = "model"

    def __post_init__(self) -> None:
        marks.settle_columns(self)
        check_fields(self)
        settle_text_head(self)
        marks.check_marks(self, "sequence-classification")

    @property
    def columns(self) -> Mapping[str, str | tuple[str, ...]]:
        """Text, pair and label, which may be several."""
        pair = {} if self.text_pair is None else {"text_pair": self.text_pair}
        return {"text": self.text, **pair, "label": self.label}

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """In order of ids; None if only the data can tell."""
        return names_of(self.labels)

    @property
    def constants(self) -> Mapping[str, tuple[float, ...]]:
        """The threshold of each label, or the one of all."""
        return marks.thresholds(self)

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """(n,) means over labels of binary cross entropies."""
        return marks.losses(self, model, batch)

    def measure(self, model: nn.Module, batch: Batch) -> Answers:
        """``accuracy``, of records whose labels are all right, and ``loss``; and what was given."""
        return marks.measured(self, model, batch)

    def synthetic(self, spec: InputSpec, lengths: Sequence[int], seed: int) -> Batch:
        """Random examples of these lengths, with each label or without, to try a model on."""
        return marks.synthetic(spec, lengths, seed)
