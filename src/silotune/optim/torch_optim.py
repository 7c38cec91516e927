"""torch's own optimisers as frozen choices."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from silotune.core import Key

from .base import Moves


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Plain SGD, the FFA-LoRA paper's choice (arXiv 2403.12313)."""

    moves_pairs: ClassVar[Moves] = Moves.ANYTHING

    learning_rate: float
    momentum: float = 0.0
    weight_decay: float = 0.0

    def build(
        self, tensors: Mapping[Key, nn.Parameter], learning_rate: float
    ) -> torch.optim.Optimizer:
        """One group over all tensors."""
        return torch.optim.SGD(
            tensors.values(),
            lr=learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101)."""

    moves_pairs: ClassVar[Moves] = Moves.ANYTHING

    learning_rate: float
    weight_decay: float = 0.0

    def build(
        self, tensors: Mapping[Key, nn.Parameter], learning_rate: float
    ) -> torch.optim.Optimizer:
        """One group over all tensors."""
        return torch.optim.AdamW(tensors.values(), lr=learning_rate, weight_decay=self.weight_decay)
