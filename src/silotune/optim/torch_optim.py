"""torch's own optimisers as frozen choices."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import nn

from silotune.core import Key
from silotune.core.fields import check_fields

from .base import Moves


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Plain SGD, the FFA-LoRA paper's choice (arXiv 2403.12313)."""

    moves_pairs: ClassVar[Moves] = Moves.ANYTHING
    basis_free: ClassVar[bool] = False

    lr: Annotated[float, Ge(0)]
    momentum: Annotated[float, Ge(0)] = 0.0
    weight_decay: Annotated[float, Ge(0)] = 0.0

    def __post_init__(self) -> None:
        check_fields(self)

    def build(self, tensors: Mapping[Key, nn.Parameter], lr: float) -> torch.optim.Optimizer:
        """One group over all tensors."""
        return torch.optim.SGD(
            tensors.values(),
            lr=lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101)."""

    moves_pairs: ClassVar[Moves] = Moves.ANYTHING
    basis_free: ClassVar[bool] = False

    lr: Annotated[float, Ge(0)]
    weight_decay: Annotated[float, Ge(0)] = 0.0

    def __post_init__(self) -> None:
        check_fields(self)

    def build(self, tensors: Mapping[Key, nn.Parameter], lr: float) -> torch.optim.Optimizer:
        """One group over all tensors."""
        return torch.optim.AdamW(tensors.values(), lr=lr, weight_decay=self.weight_decay)
