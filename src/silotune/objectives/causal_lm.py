"""Causal language modelling: an example's loss is the mean over its *own* target tokens.

A mean over the tokens of the batch would let one record's length change another's gradient, and
per-example clipping would mean nothing (specs: privacy, section 1).

Shapes: n examples, T tokens, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from silotune.core import Batch, Meter, Meters, generator
from silotune.core.inputs import InputSpec, synthetic_inputs

IGNORED = -100
"""The label of tokens that are not learned: padding and prompts."""


@dataclass(frozen=True)
class CausalLM:
    """Predict each next token; ``batch["labels"]`` repeats the ids, -100 where not learned."""

    metric: str = "loss"
    goal: Literal["max", "min"] = "min"

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """(n,) mean cross entropies; 0 for an example without a target token."""
        losses, targets = _token_losses(model, batch)
        return losses.sum(dim=1) / targets.sum(dim=1).clamp(min=1)

    @torch.no_grad()
    def measure(self, model: nn.Module, batch: Batch) -> Meters:
        """``loss``, counted in target tokens; its exponential is the perplexity."""
        losses, targets = _token_losses(model, batch)
        return {"loss": Meter(losses.sum().item(), targets.sum().item())}

    def synthetic(self, spec: InputSpec, n: int, seed: int) -> Batch:
        """``n`` random texts, each its own target."""
        inputs = synthetic_inputs(spec, n, generator(seed, "synthetic"))
        labels = inputs["input_ids"].where(inputs["attention_mask"].bool(), torch.tensor(IGNORED))
        return inputs | {"labels": labels}


def _token_losses(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Cross entropies (n, T-1), 0 where there is no target, and which are targets (n, T-1)."""
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    logits: Tensor = model(**inputs).logits[:, :-1]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets = batch["labels"][:, 1:]
    losses = F.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=IGNORED
    )
    return losses.view(targets.shape), targets != IGNORED
