"""LoRA+ (Hayou et al. 2024, arXiv 2402.12354): B moves faster than A.

With one rate for both, A and B of a wide model do not both learn features; B needs a higher one:
eta_B = ratio eta_A. Adam divides scales of gradients out, so clipped and noised ones are as good.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from silotune.core import Key, Role

from .base import Moves


@dataclass(frozen=True, kw_only=True)
class LoRAPlus:
    """AdamW with a rate of its own for every B; heads and whatever else is trained go with A.

    Attributes:
        learning_rate: eta_A of round 0.
        ratio: eta_B / eta_A; the paper has 16 (2 for hard tasks on Llama) with a lower eta_A.
        weight_decay: decoupled, by rate times this for each.

    Raises:
        ValueError: if the ratio is not positive.
    """

    moves_pairs: ClassVar[Moves] = Moves.ANYTHING

    learning_rate: float
    ratio: float = 16.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if not self.ratio > 0.0:
            raise ValueError(f"method.lora_plus_ratio: must be positive, not {self.ratio}")

    def build(
        self, tensors: Mapping[Key, nn.Parameter], learning_rate: float
    ) -> torch.optim.Optimizer:
        """Two groups, of which one may be empty."""
        fast = [p for key, p in tensors.items() if key.role is Role.B]
        slow = [p for key, p in tensors.items() if key.role is not Role.B]
        groups: list[dict[str, Any]] = [
            {"params": slow},
            {"params": fast, "lr": self.ratio * learning_rate},
        ]
        return torch.optim.AdamW(groups, lr=learning_rate, weight_decay=self.weight_decay)
