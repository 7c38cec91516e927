"""torch's own optimisers as frozen choices."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Lt
from torch import nn

from silotune.core import Key
from silotune.core.fields import check_fields

from .base import Moves

Decay = Annotated[float, Ge(0), Lt(1)]


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Plain SGD, the FFA-LoRA paper's choice (arXiv 2403.12313)."""

    moves_pairs: ClassVar[Moves] = Moves.ANYTHING
    basis_free: ClassVar[bool] = False
    by_number: ClassVar[bool] = True

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
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101), or what a method makes of it.

    Attributes:
        lr: of the schedule's largest step.
        weight_decay: decoupled.
        betas: decay rates of the two means.
        eps: added to the root of the second; None = 1e-8, or what a method's own optimiser has.
    """

    moves_pairs: ClassVar[Moves] = Moves.ANYTHING
    basis_free: ClassVar[bool] = False
    by_number: ClassVar[bool] = True

    lr: Annotated[float, Ge(0)]
    weight_decay: Annotated[float, Ge(0)] = 0.0
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    eps: Annotated[float, Gt(0)] | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def eps_or(self, usual: float) -> float:
        """``eps``, or a usual one where none is given."""
        return usual if self.eps is None else self.eps

    def build(self, tensors: Mapping[Key, nn.Parameter], lr: float) -> torch.optim.Optimizer:
        """One group over all tensors."""
        return torch.optim.AdamW(
            tensors.values(),
            lr=lr,
            betas=self.betas,
            eps=self.eps_or(1e-8),
            weight_decay=self.weight_decay,
        )
