"""Classification of texts or images: cross entropy, one loss for every example.

Shapes: n examples, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from silotune.core import Batch, Meter, Meters, generator
from silotune.core.inputs import InputSpec, synthetic_inputs


@dataclass(frozen=True)
class Classification:
    """One label for every example; ``batch["labels"]`` holds its id, shape (n,)."""

    metric: str = "accuracy"
    goal: Literal["max", "min"] = "max"

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """(n,) cross entropies."""
        return _losses(_logits(model, batch), batch["labels"])

    @torch.no_grad()
    def measure(self, model: nn.Module, batch: Batch) -> Meters:
        """``accuracy`` and ``loss``, counted in examples."""
        logits, labels = _logits(model, batch), batch["labels"]
        correct = (logits.argmax(dim=-1) == labels).sum().item()
        loss = _losses(logits, labels).sum().item()
        return {"accuracy": Meter(correct, len(labels)), "loss": Meter(loss, len(labels))}

    def synthetic(self, spec: InputSpec, n: int, seed: int) -> Batch:
        """``n`` random examples with random labels, to try a model on."""
        g = generator(seed, "synthetic")
        inputs = synthetic_inputs(spec, n, g)
        return inputs | {"labels": torch.randint(spec.num_labels, (n,), generator=g)}


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    """(n, C), in float32 at least."""
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    logits: Tensor = model(**inputs).logits
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")
