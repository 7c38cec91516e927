"""LoRA+ (Hayou et al. 2024, arXiv 2402.12354): B moves faster than A.

With one rate for both, A and B of a wide model do not both learn features; B needs a higher one:
eta_B = ratio eta_A. Adam divides scales of gradients out, so clipped and noised ones are as good.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from silotune.core import Key

from .base import Moves
from .pair_optimizer import PairOptimizer
from .param_groups import PAIRS, Group, groups_of


class LoRAPlus(PairOptimizer):
    """AdamW with a rate of its own for every B; heads and whatever else is trained go with A.

    Args:
        params: the groups of ``lora_params``.
        lr: eta_A.
        ratio: eta_B / eta_A; the paper has 16 (2 for hard tasks on Llama) with a lower eta_A.
        betas: AdamW's.
        eps: AdamW's.
        weight_decay: decoupled, by rate times this for each.

    Raises:
        ValueError: if a number makes no sense.
    """

    moves_pairs: ClassVar[Moves] = Moves.ANYTHING

    def __init__(
        self,
        params: list[Group],
        lr: float = 1e-3,
        *,
        ratio: float = 16.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if not ratio > 0.0:
            raise ValueError(f"LoRAPlus: ratio must be positive, not {ratio}")
        defaults: dict[str, Any] = {
            "lr": lr,
            "ratio": ratio,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults)

    def move_pairs(self) -> None:
        """AdamW does."""

    def for_torch(self, group: Group) -> list[Group]:
        """A and B of pairs apart."""
        if group["kind"] != PAIRS:
            return [group]
        slow = {**group, "params": group["params"][::2]}
        fast = {**group, "params": group["params"][1::2], "lr": group["ratio"] * group["lr"]}
        return [slow, fast]


@dataclass(frozen=True, kw_only=True)
class LoRAPlusConfig:
    """``LoRAPlus`` with these numbers.

    Attributes:
        lr: eta_A of round 0.
        ratio: eta_B / eta_A.
        weight_decay: decoupled, by rate times this for each.
        betas: AdamW's.
        eps: AdamW's.

    Raises:
        ValueError: if the ratio is not positive.
    """

    moves_pairs: ClassVar[Moves] = LoRAPlus.moves_pairs
    basis_free: ClassVar[bool] = False  # Adam's moments are of single entries

    lr: float
    ratio: float = 16.0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        if not self.ratio > 0.0:
            raise ValueError(f"lora_plus_ratio: must be positive, not {self.ratio}")

    def build(self, tensors: Mapping[Key, nn.Parameter], lr: float) -> LoRAPlus:
        """The scale does not matter to it."""
        return LoRAPlus(
            groups_of(tensors),
            lr=lr,
            betas=self.betas,
            eps=self.eps,
            ratio=self.ratio,
            weight_decay=self.weight_decay,
        )
