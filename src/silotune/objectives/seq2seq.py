"""Sequence to sequence: an encoder reads a text, and a decoder learns to write another.

A record's loss is the mean over its *own* target tokens. The decoder reads the target shifted by
one token, as the model itself does it (T5 begins with its padding token, BART with its end token).

Shapes: n examples, S source tokens, T target tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from silotune.core import Answers, Batch, generator
from silotune.core.fields import check_fields
from silotune.core.inputs import InputSpec, synthetic_inputs
from silotune.core.masks import DECODER, MASK

from .base import IGNORED, check_max_length
from .classification import logits_of
from .guessing import Found, Look
from .task import Task
from .tokens import inputs_of, own_means, perplexity, token_losses


def _fits(look: Look) -> bool:
    """Prompts and completions are a decoder's as well, so that these are told by other names.

    Beside a label a second text is no target.
    """
    if any(look.called("label", look.may_be_labels())):
        return False
    texts = look.texts()
    source = next(look.called("source", texts), None)
    return source is not None and any(look.called("target", [c for c in texts if c != source]))


def _guess(look: Look, taken: set[str]) -> Found:
    texts = [column for column in look.texts() if column not in taken]
    target = next(look.called("target", texts), None)
    rest = [column for column in texts if column != target]
    source = next(look.called("source", rest), rest[0] if rest and target else None)
    found = {"source": source, "target": target}
    columns = {part: column for part, column in found.items() if column is not None}
    return columns, {part: tuple(rest) for part, column in found.items() if column is None}


TASK = Task(
    name="seq2seq",
    title="writing a text for a text",
    reads="text",
    forms=(frozenset({"source", "target"}),),
    apart={"target": DECODER},
    architecture="encoder-decoder",
    auto="AutoModelForSeq2SeqLM",
    families="an encoder with a decoder (t5, bart, pegasus, mbart)",
    head=False,
    target="none",
    metrics={"loss": "min", "perplexity": "min"},
    metric="perplexity",
    meter="loss",
    counts_right=False,
    derive=perplexity,
    peft="SEQ_2_SEQ_LM",
    pipeline="text2text-generation",
    template="seq2seq",
    usual_model="google-t5/t5-small",
    stand_in="tiny_t5",
    fits=_fits,
    guess=_guess,
    rank=3,
)


@dataclass(frozen=True, kw_only=True)
class Seq2Seq:
    """Write a target for each source; ``batch["labels"]`` holds its ids (n, T), -100 at padding.

    Attributes:
        source: column of the texts to read.
        target: column of the texts to write; a record without one is left out.
        source_prefix: what every source begins with, such as ``"summarize: "`` for T5.
        max_length: tokens of a source, its prefix included; the rest is cut.
        max_target_length: tokens of a target; the rest is cut.

    Raises:
        ValueError: if a field is out of range.
    """

    facts: ClassVar[Task] = TASK
    task: ClassVar[str] = TASK.name
    constants: ClassVar[Mapping[str, tuple[float, ...]]] = {}
    metric: ClassVar[str] = TASK.meter
    goal: ClassVar[Literal["max", "min"]] = "min"
    head: ClassVar[Literal["trained", "frozen"]] = "frozen"
    head_init: ClassVar[Literal["random"]] = "random"
    head_scale: ClassVar[float] = 1.0
    head_bias: ClassVar[Literal["trained", "frozen"]] = "trained"
    pooling: ClassVar[Literal["model", "mean"]] = "model"
    labels: ClassVar[None] = None
    label_names: ClassVar[tuple[str, ...]] = ()

    source: str
    target: str
    source_prefix: str = ""
    max_length: int = 128
    max_target_length: int = 64

    def __post_init__(self) -> None:
        check_fields(self)
        check_max_length(self.max_length)
        if self.max_target_length < 2:
            raise ValueError(
                f"max_target_length: must be at least 2 tokens, a word and the end, not "
                f"{self.max_target_length}"
            )
        if self.source == self.target:
            raise ValueError("target: is the same column as source; name another")

    @property
    def columns(self) -> Mapping[str, str]:
        """Source and target."""
        return {"source": self.source, "target": self.target}

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """(n,) mean cross entropies; 0 for an example without a target token."""
        return own_means(token_losses(_logits(model, batch), batch["labels"]), batch["labels"])

    @torch.no_grad()
    def measure(self, model: nn.Module, batch: Batch) -> Answers:
        """``loss``, counted in target tokens; its exponential is the perplexity."""
        labels = batch["labels"]
        losses = token_losses(_logits(model, batch), labels)
        counts = (labels != IGNORED).sum(dim=1)
        return Answers(totals={"loss": losses.double().sum(dim=1)}, counts=counts)

    def synthetic(self, spec: InputSpec, lengths: Sequence[int], seed: int) -> Batch:
        """Random sources of these lengths with random targets of about so many tokens."""
        sources = synthetic_inputs(spec, lengths, generator(seed, "synthetic"))
        longest = self.max_target_length
        sizes = [min(max(1, n + i % 3 - 1), longest) for i, n in enumerate(lengths)]
        targets = synthetic_inputs(spec, sizes, generator(seed, "synthetic", "targets"))
        labels = targets["input_ids"].where(targets[MASK].bool(), torch.tensor(IGNORED))
        return {**sources, "labels": labels, DECODER + MASK: targets[MASK]}


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    """(n, T, V), in float32 at least."""
    return logits_of(model, inputs_of(model, batch))
