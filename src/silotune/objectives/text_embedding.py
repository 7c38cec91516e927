"""Text embedding: vectors of texts whose cosines are to be the scores of pairs.

A record is two texts with a score. Each goes through the model by itself, and the loss is that of
the cosine of their vectors (cosine similarity loss of Sentence-BERT, arXiv 1908.10084): a function
of this record and no other. Both passes count into the record's one gradient, before it is clipped.

A contrastive loss (multiple negatives ranking, InfoNCE) takes the texts of other records of a batch
as negatives. Whether a record is there or not then moves the gradients of all others of its batch,
and clipping bounds none of that; so there is none here.

Shapes: n records, h features.
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
from silotune.core.masks import PAIR

from .base import check_max_length
from .embeddings import embedded
from .guessing import Found, Look, marked, pair, plain
from .task import Task

_OTHERS = (
    "would be learned by contrast with the other records of a batch, so that the loss of one "
    "record depends on others, and its removal moves more than the one gradient that is clipped"
)

CONTRASTIVE = frozenset(
    {"contrastive", "infonce", "mnr", "mnrl", "multiplenegativesranking", "inbatchnegatives"}
)
"""What people call the loss that is refused, without case and signs."""


def check_loss(name: object) -> object:
    """Refuse a loss that looks at other records, with the reason.

    Raises:
        ValueError: naming what to take instead.
    """
    if isinstance(name, str) and plain(name).removesuffix("loss") in CONTRASTIVE:
        raise ValueError(
            f"pairs {_OTHERS}; give pairs a score instead (the highest to texts that belong "
            "together, the lowest to others), and take mse or huber"
        )
    return name


def derived(answers: Answers) -> Derived:
    """Pearson's and Spearman's correlation of cosines and scores; NaN where nothing varies."""
    if "cosine" not in answers.kept:
        return Derived()
    from scipy.stats import pearsonr, spearmanr  # takes a second

    cosine, score = (answers.kept[name].double() for name in ("cosine", "score"))
    scored = {"pearson": pearsonr, "spearman": spearmanr}
    if not (_varies(cosine) and _varies(score)):
        return Derived(metrics=dict.fromkeys(scored, math.nan))
    found = {name: f(cosine.numpy(), score.numpy()).statistic for name, f in scored.items()}
    return Derived(metrics={name: float(value) for name, value in found.items()})


def _varies(numbers: Tensor) -> bool:
    return len(numbers) > 1 and bool(numbers.isfinite().all() and (numbers != numbers[0]).any())


def _fits(look: Look) -> bool:
    """Two texts and a number that is called a score, which other tasks have other names for."""
    return pair(look.texts()) is not None and any(look.called("score", look.numbers()))


def _guess(look: Look, taken: set[str]) -> Found:
    numbers = [*look.called("score", look.numbers())] or look.numbers()
    columns, unknown = marked(look, numbers, taken)
    if "text" in columns and "text_pair" not in columns:
        used = {*columns.values(), *taken}
        rest = tuple(column for column in look.texts() if column not in used)
        unknown = {**unknown, "text_pair": rest or tuple(look.columns)}
    return columns, unknown


TASK = Task(
    name="text-embedding",
    title="the similarity of texts",
    reads="text",
    forms=(frozenset({"text", "text_pair", "label"}),),
    apart={"text_pair": PAIR},
    auto="AutoModel",
    families="an encoder (bert, roberta, modernbert) or a decoder that embeds (qwen3)",
    head=False,
    target="score",
    needs={"label": f"pairs without a score {_OTHERS}"},
    poolings=("model", "mean", "cls", "last"),
    metrics={"loss": "min", "mse": "min", "pearson": "max", "spearman": "max"},
    metric="spearman",
    meter="mse",
    counts_right=False,
    derive=derived,
    peft="FEATURE_EXTRACTION",
    pipeline="sentence-similarity",
    template="embedding",
    usual_model="sentence-transformers/all-MiniLM-L6-v2",
    stand_in="tiny_bert",
    fits=_fits,
    guess=_guess,
    rank=2,
)


@dataclass(frozen=True, kw_only=True)
class TextEmbedding:
    """Vectors of texts by the scores of pairs; ``batch["labels"]`` holds a score each, (n, 1).

    Both texts are read by the same model. ``score_range`` stands for ``cosine_range``, and what
    lies between for what lies between.

    Attributes:
        text: column of the first text.
        text_pair: column of the second.
        label: column of the score.
        score_range: public; the lowest and the highest score that there may be. It is declared,
            and never taken from the records.
        cosine_range: the cosines that these two stand for; (-1, 1) where the lowest score is of
            texts that say the opposite.
        loss: squared errors of cosines, or Huber's, which grow linearly where they are large.
        huber_delta: from so large an error of a cosine on.
        max_length: tokens of each text; the rest is cut.
        pooling: what makes one vector of a text: as the checkpoint's files say (those of
            sentence-transformers), the mean over tokens, the first token, or the last. Vectors are
            of length 1.

    Raises:
        ValueError: if a field is out of range, or the loss looks at other records.
    """

    facts: ClassVar[Task] = TASK
    task: ClassVar[str] = TASK.name
    metric: ClassVar[str] = TASK.metric
    goal: ClassVar[Literal["max", "min"]] = "max"
    head: ClassVar[Literal["trained", "frozen"]] = "frozen"
    head_init: ClassVar[Literal["random"]] = "random"
    head_scale: ClassVar[float] = 1.0
    head_bias: ClassVar[Literal["trained", "frozen"]] = "trained"
    labels: ClassVar[None] = None
    label_names: ClassVar[tuple[str, ...]] = ()

    text: str
    text_pair: str
    label: str
    score_range: tuple[float, float]
    cosine_range: tuple[float, float] = (0.0, 1.0)
    loss: Literal["mse", "huber"] = "mse"
    huber_delta: Annotated[float, Gt(0)] = 0.1
    max_length: int = 128
    pooling: Literal["model", "mean", "cls", "last"] = "model"

    def __post_init__(self) -> None:
        for name in ("score_range", "cosine_range"):
            value: Any = getattr(self, name)
            object.__setattr__(self, name, _ends(name, value))
        try:
            check_loss(self.loss)
        except ValueError as error:
            raise ValueError(f"loss: {error}") from None
        check_fields(self)
        check_max_length(self.max_length)
        if self.cosine_range[0] < -1 or self.cosine_range[1] > 1:
            raise ValueError("cosine_range: cosines are between -1 and 1")
        ends = cosines_of(torch.tensor(self.score_range), self.constants)
        if not torch.allclose(ends, torch.tensor(self.cosine_range), atol=1e-3):
            raise ValueError(
                "score_range: its ends are too large, or too near to each other, for float32 to "
                "tell scores apart; write the scores in other units"
            )

    @property
    def columns(self) -> Mapping[str, str]:
        """Both texts and the score."""
        return {"text": self.text, "text_pair": self.text_pair, "label": self.label}

    @property
    def constants(self) -> Mapping[str, tuple[float, ...]]:
        """What makes a score of a cosine."""
        return {"score_range": self.score_range, "cosine_range": self.cosine_range}

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """(n,) errors of cosines, each of its own record."""
        return self._losses(self.cosines(model, batch), batch["labels"])

    @torch.no_grad()
    def measure(self, model: nn.Module, batch: Batch) -> Answers:
        """``mse`` in the units of the scores, and ``loss``; and the cosines and scores."""
        cosine, score = self.cosines(model, batch), batch["labels"].flatten()
        error = scores_of(cosine.double(), self.constants) - score.double()
        return Answers(
            totals={"loss": self._losses(cosine, score), "mse": error.square()},
            counts=torch.ones(len(score), dtype=torch.long),
            kept={"cosine": cosine.double(), "score": score.double()},
        )

    def cosines(self, model: nn.Module, batch: Batch) -> Tensor:
        """(n,) of the two texts of each record, which go through the model one after the other."""
        first = {k: t for k, t in batch.items() if k != "labels" and not k.startswith(PAIR)}
        second = {k.removeprefix(PAIR): t for k, t in batch.items() if k.startswith(PAIR)}
        one, other = (embedded(model, texts, self.pooling) for texts in (first, second))
        return (one * other).sum(dim=1)

    def synthetic(self, spec: InputSpec, lengths: Sequence[int], seed: int) -> Batch:
        """Random pairs of texts of about these lengths, to try a model on.

        Their scores lie beyond both ends of the range. Where a cosine is what it should be, the
        gradient is rounding and little else, by which nothing is told of a model.
        """
        g = generator(seed, "synthetic")
        firsts = synthetic_inputs(spec, lengths, g)
        most = self.max_length
        sizes = [min(max(2, n + i % 3 - 1), most) for i, n in enumerate(lengths)]
        seconds = synthetic_inputs(spec, sizes, generator(seed, "synthetic", "pairs"))
        (low, high), above = self.score_range, torch.rand(len(lengths), 1, generator=g) < 0.5
        scores = torch.where(above, 2 * high - low, 2 * low - high)
        return {**firsts, **{PAIR + k: t for k, t in seconds.items()}, "labels": scores}

    def _losses(self, cosine: Tensor, score: Tensor) -> Tensor:
        wanted = cosines_of(score.flatten().to(cosine.dtype), self.constants)
        if self.loss == "huber":
            return F.huber_loss(cosine, wanted, reduction="none", delta=self.huber_delta)
        return F.mse_loss(cosine, wanted, reduction="none")


def scores_of(cosine: Tensor, constants: Mapping[str, Sequence[float]]) -> Tensor:
    """The scores that cosines stand for, of any shape; they may lie a little outside the range."""
    return _between(cosine, constants["cosine_range"], constants["score_range"])


def cosines_of(score: Tensor, constants: Mapping[str, Sequence[float]]) -> Tensor:
    """The cosines that scores stand for, of any shape."""
    return _between(score, constants["score_range"], constants["cosine_range"])


def _between(numbers: Tensor, here: Sequence[float], there: Sequence[float]) -> Tensor:
    share = (numbers - here[0]) / (here[1] - here[0])
    return there[0] + share * (there[1] - there[0])


def _ends(name: str, value: Any) -> tuple[float, float]:
    """A range as two numbers.

    Raises:
        ValueError: if it is none.
    """
    numbers = isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2
    if not numbers or not all(type(v) in (int, float) and math.isfinite(v) for v in value):
        raise ValueError(f"{name}: give the lowest and the highest number, such as [0, 5]")
    if value[0] >= value[1]:
        raise ValueError(f"{name}: the first number must be below the second")
    return float(value[0]), float(value[1])
