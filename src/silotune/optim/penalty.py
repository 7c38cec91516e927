"""XGBLoRA's penalty (arXiv 2410.19694): pairs are pulled towards 0.

Like FedProx's pull it acts after clipping and noise, on tensors that are made of such gradients
already: post-processing, so the privacy guarantee stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from silotune.core import Key, Role

from .base import Moves, OptimizerConfig


@dataclass(frozen=True)
class PenaltyConfig:
    """A client minimises ``f + weight (|A|^2 + |B|^2)``: g + 2 weight A, and likewise for B.

    It is a part of the loss, so that AdamW divides it by the size of the gradient, unlike a weight
    decay. Heads are left alone, and so is a factor that does not train in this step.

    Attributes:
        inner: the optimiser that takes the step.
        weight: lambda; 0 is the inner optimiser itself.

    Raises:
        ValueError: if the weight is negative.
    """

    inner: OptimizerConfig
    weight: float

    def __post_init__(self) -> None:
        if not self.weight >= 0.0:
            raise ValueError(f"penalty: must not be negative, not {self.weight}")

    @property
    def lr(self) -> float:
        """The inner optimiser's."""
        return self.inner.lr

    @property
    def moves_pairs(self) -> Moves:
        """The inner optimiser's."""
        return self.inner.moves_pairs

    @property
    def basis_free(self) -> bool:
        """No: the penalty is one on A and B themselves."""
        return False

    def build(self, tensors: Mapping[Key, nn.Parameter], lr: float) -> torch.optim.Optimizer:
        """The inner optimiser, pulling pairs towards 0."""
        optimizer = self.inner.build(tensors, lr)

        def pull(*_: object) -> None:
            for key, p in tensors.items():
                if p.grad is not None and key.role in (Role.A, Role.B):
                    p.grad = torch.add(p.grad, p.detach(), alpha=2.0 * self.weight)

        optimizer.register_step_pre_hook(pull)
        return optimizer
