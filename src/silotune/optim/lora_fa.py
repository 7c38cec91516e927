"""LoRA-FA (Zhang et al. 2023, arXiv 2308.03303): A is frozen, and B moves as W would.

With A frozen, W = W_0 + s B A moves along G~ = s g^B A, and what comes closest to W's own gradient
G is the projection G P_A on the rows of A, by

    g^B = gB (A A^T + damping)^-1 / s^2

which Adam then takes its step with, as in PEFT. It is what LoRA-Pro and LoRA-RITE come down to
where A is frozen; and where its rows are orthonormal (``init_lora_weights: orthonormal``), this is
gB / s^2, and Adam divides scales out again: plain AdamW.

A is public and frozen, so noise in gB is multiplied by a constant, which damping need not bound.
A Kaiming-uniform A of many more columns than rows has A A^T near I / 3.

Shapes: out, in = features of a site, r = rank, n = sites of a stack.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from silotune.core import Key, Role

from .base import Moves
from .pair_optimizer import PairOptimizer, Stack, gram
from .param_groups import Group, groups_of, not_negative


class LoRAFA(PairOptimizer):
    """AdamW with scaled gradients of every B; as they are for heads and whatever else is trained.

    Args:
        params: the groups of ``lora_params(model, freeze_a=True)``.
        lr: eta.
        betas: AdamW's.
        eps: AdamW's.
        weight_decay: decoupled.
        damping: added to the eigenvalues of A A^T.

    Raises:
        ValueError: if a number makes no sense.
    """

    moves_pairs: ClassVar[Moves] = Moves.ONLY_B

    def __init__(
        self,
        params: list[Group],
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        damping: float = 1e-8,
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "damping": damping,
        }
        super().__init__(params, defaults)

    def move(self, stack: Stack, group: Group) -> None:
        """A stack's gradients, before AdamW."""
        a, g_b = stack.values(Role.A), stack.gradients(Role.B)
        inverse = gram(a.mT).inverse(group["damping"], a) / group["scale"] ** 2
        stack.replace_gradients(Role.B, g_b @ inverse)

    def for_torch(self, group: Group) -> list[Group]:
        """All of it."""
        return [group]


@dataclass(frozen=True, kw_only=True)
class LoRAFAConfig:
    """``LoRAFA`` with these numbers.

    Attributes:
        lr: of round 0.
        scale: s, the adapter's.
        weight_decay: decoupled.
        damping: added to the eigenvalues of A A^T.
        betas: AdamW's.
        eps: AdamW's.

    Raises:
        ValueError: if the damping is negative.
    """

    moves_pairs: ClassVar[Moves] = LoRAFA.moves_pairs
    basis_free: ClassVar[bool] = False  # Adam's moments are of single entries

    lr: float
    scale: float
    weight_decay: float = 0.0
    damping: float = 1e-8
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        not_negative("damping", self.damping)

    def build(self, tensors: Mapping[Key, nn.Parameter], lr: float) -> LoRAFA:
        """One scale for all pairs."""
        return LoRAFA(
            groups_of(tensors, self.scale),
            lr=lr,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
            damping=self.damping,
        )
