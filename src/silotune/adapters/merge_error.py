"""Merge error: what a merged model lost of what was learned.

A base in half precision keeps eight bits or eleven of a weight, so that an update much smaller than
the weights is rounded away in part when it is added to them; and what only an estimate of can be
merged (ResLoRA's shortcuts) comes out otherwise. On the same inputs, with outputs f,

    learned = |f(trained) - f(untrained)|      lost = |f(merged) - f(trained)|

All are computed in float32, so that this is rounding of weights, and estimates, alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

NOTABLE = 0.01
"""Share of what was learned that is worth a warning when it is lost."""


@dataclass(frozen=True, kw_only=True)
class MergeError:
    """How far a merged model is from the trained one.

    Attributes:
        learned: L2 norm of what training changed of the outputs.
        lost: the same of what merging changed.
        number_type: of the merged weights, the coarsest: ``float32``, ``bfloat16``.
        estimated: whether an estimate was merged, of what no weight computes.
        records: which the outputs are of.
    """

    learned: float
    lost: float
    number_type: str
    estimated: bool = False
    records: str = "made-up records"

    @classmethod
    def of(
        cls,
        untrained: Tensor,
        trained: Tensor,
        merged: Tensor,
        model: nn.Module,
        *,
        estimated: bool,
        records: str,
    ) -> MergeError:
        """From outputs for the same inputs, and the merged model."""
        return cls(
            learned=float((trained - untrained).norm()),
            lost=float((merged - trained).norm()),
            number_type=_coarsest(model),
            estimated=estimated,
            records=records,
        )

    @property
    def share(self) -> float:
        """Lost in parts of learned."""
        return self.lost / max(self.learned, torch.finfo(torch.float64).tiny)

    @property
    def is_notable(self) -> bool:
        """Whether whoever uses the model should know."""
        return self.share > NOTABLE

    def __str__(self) -> str:
        """The figure as a sentence; where it is notable, with the reason and the cure."""
        if self.lost == 0:
            return f"merged, the model computes the same on {self.records}"
        said = (
            f"merging changes the outputs by {self.share:.2g} of what training changed "
            f"({self.lost:.2g} of {self.learned:.2g}, on {self.records})"
        )
        if self.estimated:
            return f"{said}: shortcuts are estimated; silotune.load has them as they were trained"
        if not self.is_notable or self.number_type == "float32":
            return said
        return (
            f"{said}: {self.number_type} weights have too few digits for so small an update; "
            "--format peft loses nothing"
        )


@torch.no_grad()
def outputs(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Logits, or last hidden states, in float64 on the CPU, of a model in evaluation mode."""
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    try:
        found: Any = model(**{name: t.to(device) for name, t in inputs.items()})
        told: Tensor = found.logits if hasattr(found, "logits") else found.last_hidden_state
        return told.double().cpu()
    finally:
        model.train(was_training)


@contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """Weights in half precision are float32 meanwhile, which changes no number."""
    tensors = [t for t in chain(model.parameters(), model.buffers()) if _is_half(t)]
    types = [t.dtype for t in tensors]
    try:
        for tensor in tensors:
            tensor.data = tensor.data.float()
        yield
    finally:
        for tensor, dtype in zip(tensors, types, strict=True):
            tensor.data = tensor.data.to(dtype)


def _is_half(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and torch.finfo(tensor.dtype).bits < 32


def _coarsest(model: nn.Module) -> str:
    types = {p.dtype for p in model.parameters() if p.is_floating_point()}
    coarsest = max(types, key=lambda dtype: torch.finfo(dtype).eps)
    return str(coarsest).removeprefix("torch.")
