"""Causal language modelling: an example's loss is the mean over its *own* target tokens.

A mean over the tokens of the batch would let one record's length change another's gradient, and
per-example clipping would mean nothing (see docs/privacy-pitfalls.md).

Shapes: n examples, T tokens, V vocabulary.
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

from .base import IGNORED, check_max_length
from .classification import logits_of
from .guessing import Found, Look
from .task import Task
from .tokens import own_means, perplexity, token_losses


def _fits(look: Look) -> bool:
    asked = next(look.called("prompt", look.texts()), None)
    answered = asked and next(look.called("completion", look.texts()), None)
    return bool(look.chats() or answered)


def _guess(look: Look, taken: set[str]) -> Found:
    if chats := look.chats():
        return {"messages": next(look.called("messages", chats), chats[0])}, {}
    texts = [column for column in look.texts() if column not in taken]
    prompt = next(look.called("prompt", texts), None)
    completion = next(look.called("completion", [c for c in texts if c != prompt]), None)
    if prompt and completion:
        rest = [column for column in texts if column not in (prompt, completion)]
        given = next(look.called("input", rest), None)
        extra = {"input": given} if given else {}
        return {"prompt": prompt, **extra, "completion": completion}, {}
    if not texts:
        return {}, {"text": tuple(look.columns)}
    return {"text": next(look.called("text", texts), texts[0])}, {}


TASK = Task(
    name="causal-lm",
    title="language modelling",
    reads="text",
    forms=(
        frozenset({"text"}),
        frozenset({"prompt", "completion"}),
        frozenset({"prompt", "input", "completion"}),
        frozenset({"messages"}),
    ),
    architecture="decoder",
    auto="AutoModelForCausalLM",
    families="a decoder (gpt2, llama, qwen3, gemma3_text)",
    head=False,
    target="none",
    metrics={"loss": "min", "perplexity": "min"},
    metric="perplexity",
    meter="loss",
    counts_right=False,
    derive=perplexity,
    peft="CAUSAL_LM",
    pipeline="text-generation",
    template="causal_lm",
    usual_model="HuggingFaceTB/SmolLM2-135M",
    stand_in="tiny_llama",
    fits=_fits,
    guess=_guess,
    rank=2,
)


@dataclass(frozen=True, kw_only=True)
class CausalLM:
    """Predict each next token; ``batch["labels"]`` repeats the ids, -100 where not learned.

    Attributes:
        text: column of plain texts; or
        prompt: column of prompts, which are not learned, with
        input: column of inputs, where prompts are instructions (Alpaca): they become one prompt;
        completion: column of their completions, which are; or
        messages: column of chats, lists of {role, content} or, as in ShareGPT, {from, value}.
        max_length: tokens of a record; the rest is cut.

    Raises:
        ValueError: if these columns make no record.
    """

    facts: ClassVar[Task] = TASK
    task: ClassVar[str] = TASK.name
    constants: ClassVar[Mapping[str, tuple[float, ...]]] = {}
    metric: ClassVar[str] = "loss"
    goal: ClassVar[Literal["max", "min"]] = "min"
    head: ClassVar[Literal["trained", "frozen"]] = "frozen"
    head_init: ClassVar[Literal["random"]] = "random"
    head_scale: ClassVar[float] = 1.0
    head_bias: ClassVar[Literal["trained", "frozen"]] = "trained"
    pooling: ClassVar[Literal["model", "mean"]] = "model"
    labels: ClassVar[None] = None
    label_names: ClassVar[tuple[str, ...]] = ()

    text: str | None = None
    prompt: str | None = None
    input: str | None = None
    completion: str | None = None
    messages: str | None = None
    max_length: int = 128

    def __post_init__(self) -> None:
        check_fields(self)
        check_max_length(self.max_length)
        if self.columns.keys() not in TASK.forms:
            raise ValueError(
                "columns: causal-lm takes text, or prompt and completion, or messages, not "
                f"{' and '.join(self.columns) or 'nothing'}"
            )

    @property
    def columns(self) -> Mapping[str, str]:
        """Those that are named."""
        parts = {
            "text": self.text,
            "prompt": self.prompt,
            "input": self.input,
            "completion": self.completion,
            "messages": self.messages,
        }
        return {part: column for part, column in parts.items() if column is not None}

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """(n,) mean cross entropies; 0 for an example without a target token."""
        targets = batch["labels"][:, 1:]
        return own_means(token_losses(_logits(model, batch), targets), targets)

    @torch.no_grad()
    def measure(self, model: nn.Module, batch: Batch) -> Answers:
        """``loss``, counted in target tokens; its exponential is the perplexity."""
        targets = batch["labels"][:, 1:]
        losses = token_losses(_logits(model, batch), targets)
        counts = (targets != IGNORED).sum(dim=1)
        return Answers(totals={"loss": losses.double().sum(dim=1)}, counts=counts)

    def synthetic(self, spec: InputSpec, lengths: Sequence[int], seed: int) -> Batch:
        """Random texts of these lengths, each its own target but for its prompt."""
        inputs = synthetic_inputs(spec, lengths, generator(seed, "synthetic"))
        learned = inputs["attention_mask"].bool()
        if self.text is None:  # the first half of a record
            learned &= torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None] // 2
        labels = inputs["input_ids"].where(learned, torch.tensor(IGNORED))
        return inputs | {"labels": labels}


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    """(n, T-1, V) of what predicts a token: nothing predicts the first."""
    return logits_of(model, batch)[:, :-1]
