"""Regression: one number for every text, or several; squared errors of standardised targets.

Shapes: n examples, K numbers each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from annotated_types import Gt
from torch import Tensor, nn

from silotune.core import Answers, Batch, Derived, generator
from silotune.core.fields import check_fields
from silotune.core.inputs import InputSpec, synthetic_inputs

from .answers import in_units
from .base import check_max_length
from .classification import check_head, logits_of
from .guessing import Found, Look, marked
from .label_scores import scikit_learn
from .task import Task


def derived(answers: Answers) -> Derived:
    """R2 and Spearman's rank correlation, each a mean over targets; NaN where nothing varies.

    NaN as well if a number is not finite.
    """
    if "target" not in answers.kept:
        return Derived()
    target, predicted = answers.kept["target"], answers.kept["predicted"]
    if not (target.isfinite().all() and predicted.isfinite().all()):
        return Derived(metrics={"r2": math.nan, "spearman": math.nan})
    several = len(target) > 1
    r2 = scikit_learn().r2_score(target.numpy(), predicted.numpy()) if several else math.nan
    return Derived(metrics={"r2": float(r2), "spearman": spearman(target, predicted)})


def spearman(target: Tensor, predicted: Tensor) -> float:
    """Mean over columns of the rank correlation; NaN for one that does not vary.

    Args:
        target: (n, C).
        predicted: (n, C).
    """
    from scipy.stats import spearmanr  # takes a second

    columns = range(target.shape[1])
    found = [_rank_correlation(spearmanr, target[:, c], predicted[:, c]) for c in columns]
    return math.fsum(found) / len(found)


def _rank_correlation(spearmanr: Any, one: Tensor, other: Tensor) -> float:
    if len(one) < 2 or torch.equal(one, one[:1].expand_as(one)):
        return math.nan
    if torch.equal(other, other[:1].expand_as(other)):
        return math.nan
    return float(spearmanr(one.numpy(), other.numpy()).statistic)


def _fits(look: Look) -> bool:
    """Numbers may as well be classes that somebody has not made yet, so nobody is told so."""
    return False


def _guess(look: Look, taken: set[str]) -> Found:
    return marked(look, look.numbers(), taken)


TASK = Task(
    name="regression",
    title="regression on text",
    reads="text",
    forms=(frozenset({"text", "label"}), frozenset({"text", "text_pair", "label"})),
    auto="AutoModelForSequenceClassification",
    families="an encoder (bert, roberta, modernbert, deberta-v2) or a decoder "
    "(llama, qwen3, gemma3_text)",
    head=True,
    target="numbers",
    poolings=("model", "mean"),
    problem="regression",
    metrics={"loss": "min", "mse": "min", "mae": "min", "r2": "max", "spearman": "max"},
    metric="mae",
    meter="mae",
    counts_right=False,
    derive=derived,
    answer=in_units,
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
class Regression:
    """Numbers for every text; ``batch["labels"]`` holds them as they are, (n, K) float32.

    The model's outputs are standardised: a number is mean + scale * output. A record's loss is the
    mean over its numbers, in standard units, so that no unit outweighs another.

    Attributes:
        text: column of the text.
        text_pair: column of the second text of a pair.
        label: column of the number, or several columns.
        target_mean: public; about the mean of the numbers, one for all or one for each column. It
            is declared, from what is known anyway, and never taken from the records.
        target_scale: public, likewise; about their standard deviation.
        loss: squared errors, or Huber's, which grow linearly where they are large.
        huber_delta: from so many standard units on.
        max_length: tokens of a text or pair; the rest is cut.
        head: whether the head moves; a trained one is clipped, noised and accounted like a pair.
        head_init: from the seed (``auto`` too), or as the base model brings it.
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
    goal: ClassVar[Literal["max", "min"]] = "min"
    labels: ClassVar[None] = None

    text: str
    label: str | tuple[str, ...]
    target_mean: float | tuple[float, ...]
    target_scale: float | tuple[float, ...]
    text_pair: str | None = None
    loss: Literal["mse", "huber"] = "mse"
    huber_delta: Annotated[float, Gt(0)] = 1.0
    max_length: int = 128
    head: Literal["trained", "frozen"] = "trained"
    head_init: Literal["auto", "random", "checkpoint"] = "auto"
    head_scale: float = 1.0
    head_bias: Literal["trained", "frozen"] = "trained"
    pooling: Literal["model", "mean"] = "model"

    def __post_init__(self) -> None:
        for name in ("label", "target_mean", "target_scale"):
            value: Any = getattr(self, name)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        check_fields(self)
        check_max_length(self.max_length)
        check_head(self.head_scale)
        if self.head_init == "auto":
            object.__setattr__(self, "head_init", "random")
        self._check_standard()

    @property
    def columns(self) -> Mapping[str, str | tuple[str, ...]]:
        """Text, pair and label, which may be several."""
        pair = {} if self.text_pair is None else {"text_pair": self.text_pair}
        return {"text": self.text, **pair, "label": self.label}

    @property
    def label_names(self) -> tuple[str, ...]:
        """What the outputs are called: the columns of the numbers."""
        return (self.label,) if isinstance(self.label, str) else self.label

    @property
    def constants(self) -> Mapping[str, tuple[float, ...]]:
        """Mean and scale of each number."""
        return {"mean": self._each(self.target_mean), "scale": self._each(self.target_scale)}

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """(n,) mean errors of standardised numbers."""
        return self._losses(logits_of(model, batch), batch["labels"])

    @torch.no_grad()
    def measure(self, model: nn.Module, batch: Batch) -> Answers:
        """``mae`` and ``mse`` in the units of the numbers, and ``loss``; means over several."""
        logits, target = logits_of(model, batch), batch["labels"]
        predicted = self.predicted(logits)
        error = predicted - target.double()
        return Answers(
            totals={
                "loss": self._losses(logits, target),
                "mse": error.square().mean(dim=1),
                "mae": error.abs().mean(dim=1),
            },
            counts=torch.ones(len(target), dtype=torch.long),
            kept={"target": target.double(), "predicted": predicted},
        )

    def predicted(self, logits: Tensor) -> Tensor:
        """(n, K) outputs in the units of the numbers, float64."""
        mean, scale = self._standard(logits.double())
        return mean + scale * logits.double()

    def synthetic(self, spec: InputSpec, lengths: Sequence[int], seed: int) -> Batch:
        """Random examples of these lengths with numbers around the mean, to try a model on."""
        g = generator(seed, "synthetic")
        inputs = synthetic_inputs(spec, lengths, g)
        drawn = torch.randn(len(lengths), spec.num_labels, generator=g)
        return inputs | {"labels": self.predicted(drawn).float()}

    def _losses(self, logits: Tensor, target: Tensor) -> Tensor:
        mean, scale = self._standard(logits)
        wanted = (target - mean) / scale
        if self.loss == "huber":
            losses = F.huber_loss(logits, wanted, reduction="none", delta=self.huber_delta)
        else:
            losses = F.mse_loss(logits, wanted, reduction="none")
        return losses.mean(dim=1)

    def _standard(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and scale, (K,) each."""
        return like.new_tensor(self.constants["mean"]), like.new_tensor(self.constants["scale"])

    def _each(self, given: float | tuple[float, ...]) -> tuple[float, ...]:
        several = given if isinstance(given, tuple) else (given,) * len(self.label_names)
        return tuple(map(float, several))

    def _check_standard(self) -> None:
        for name in ("target_mean", "target_scale"):
            values = self._each(getattr(self, name))
            if len(values) != len(self.label_names):
                raise ValueError(
                    f"{name}: {len(values)} numbers for {len(self.label_names)} columns; give one "
                    "for each, or one for all"
                )
            if not all(map(math.isfinite, values)):
                raise ValueError(f"{name}: must be finite")
        if min(self._each(self.target_scale)) <= 0:
            raise ValueError("target_scale: must be positive; about a standard deviation will do")
