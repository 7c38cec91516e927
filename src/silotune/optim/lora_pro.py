"""LoRA-Pro (Wang et al. 2024, arXiv 2407.18242): gradients of A and B that add up to W's own.

A step along (g^A, g^B) moves W = W_0 + s B A along G~ = s B g^A + s g^B A. What comes closest to
the gradient G of W itself, for every X (r, r), with the projections P_B, P_A on the columns of B
and the rows of A, is

    g^A = (B^T B)^-1 gA / s^2 + X A
    g^B = (I - P_B) gB (A A^T)^-1 / s^2 - B X        G~ = P_B G + (I - P_B) G P_A

which takes no more than gA = s B^T G and gB = s G A^T. X leaves G~ as it is; the one chosen comes
closest to gA and gB themselves:

    B^T B X + X A A^T = (gA - g0^A) A^T - B^T (gB - g0^B)        g0 = g at X = 0

The paper's right-hand side has the first term's -g0^A A^T alone: gA A^T = B^T gB holds of exact
gradients, but not of clipped and noised ones, so here it is whole. With the eigenvalues l, u of
B^T B and A A^T it is solved entry by entry, X_ij = C_ij / (l_i + u_j).

Then AdamW takes its step with g^A and g^B (the paper's efficient mode; Adam's state), or the means
of Adam are those of G~ itself: (out, in) each, ``2 out in`` numbers for every layer and, with r = 8
and out = in = 4096, 256 times Adam's (the paper's full mode). Their N = m / (sqrt(v) + eps) is then
treated as the gradient G.

Under privacy the noise in gA is divided by the small eigenvalues of B^T B while B is near 0:
damping, which is added to them, bounds that. 1e-8 is for exact gradients; 1e-2, which PEFT's
Riemannian optimiser has, is one for noised ones. At B = 0 gA is all noise and is not divided.

Shapes: out, in = features of a site, r = rank, n = sites of a stack.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from silotune.core import Key, Role

from .base import Moves
from .pair_optimizer import Gram, Memory, PairOptimizer, Stack, gram
from .param_groups import PAIRS, Group, groups_of, not_negative


class LoRAPro(PairOptimizer):
    """LoRA-Pro for every pair; AdamW for heads and whatever else is trained.

    Args:
        params: the groups of ``lora_params``, which know every pair's scale s.
        lr: eta.
        betas: of AdamW, or of the means of G~.
        eps: likewise.
        weight_decay: decoupled, of A and B.
        damping: added to the eigenvalues of B^T B and A A^T that are inverted.
        full_moments: the means of Adam are those of G~, 2 out in numbers for every layer; they are
            with B.

    Raises:
        ValueError: if a number makes no sense.
    """

    moves_pairs: ClassVar[Moves] = Moves.BOTH

    def __init__(
        self,
        params: list[Group],
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        damping: float = 1e-8,
        full_moments: bool = False,
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "damping": damping,
            "full_moments": full_moments,
        }
        super().__init__(params, defaults)

    def move(self, stack: Stack, group: Group) -> None:
        """Before AdamW, or instead of it."""
        a, b = stack.values(Role.A), stack.values(Role.B)
        pair = Pair(a, b, group["scale"], group["damping"])
        given = stack.gradients(Role.A), stack.gradients(Role.B)
        if not group["full_moments"]:
            new_a, new_b = pair.equivalent(*given)
            stack.replace_gradients(Role.A, new_a)
            stack.replace_gradients(Role.B, new_b)
            return
        memory = stack.memory(Role.B)
        n = _adam(pair.whole(*given), memory, group)
        stack.remember(Role.B, memory)
        new_a, new_b = pair.equivalent(pair.scale * (b.mT @ n), pair.scale * (n @ a.mT))
        stack.move(Role.A, -group["lr"] * (new_a + group["weight_decay"] * a))
        stack.move(Role.B, -group["lr"] * (new_b + group["weight_decay"] * b))

    def for_torch(self, group: Group) -> list[Group]:
        """Pairs as well, unless the means are those of G~."""
        return [] if group["kind"] == PAIRS and group["full_moments"] else [group]


@dataclass(frozen=True, kw_only=True)
class LoRAProConfig:
    """``LoRAPro`` with these numbers.

    Attributes:
        lr: of round 0.
        scale: s, the adapter's.
        weight_decay: decoupled, of A and B.
        damping: added to the eigenvalues of B^T B and A A^T that are inverted.
        full_moments: the means of Adam are those of G~.
        betas: AdamW's.
        eps: AdamW's.

    Raises:
        ValueError: if the damping is negative.
    """

    moves_pairs: ClassVar[Moves] = LoRAPro.moves_pairs

    lr: float
    scale: float
    weight_decay: float = 0.0
    damping: float = 1e-8
    full_moments: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        not_negative("damping", self.damping)

    @property
    def basis_free(self) -> bool:
        """Where the means are those of G~."""
        return self.full_moments

    def build(self, tensors: Mapping[Key, nn.Parameter], lr: float) -> LoRAPro:
        """One scale for all pairs."""
        return LoRAPro(
            groups_of(tensors, self.scale),
            lr=lr,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
            damping=self.damping,
            full_moments=self.full_moments,
        )


@dataclass(frozen=True, eq=False)
class Pair:
    """A stack's factors and their scale, where gradients are weighed against that of W."""

    a: Tensor  # (n, r, in)
    b: Tensor  # (n, out, r)
    scale: float
    damping: float

    @cached_property
    def of_a(self) -> Gram:
        """A A^T."""
        return gram(self.a.mT)

    @cached_property
    def of_b(self) -> Gram:
        """B^T B."""
        return gram(self.b)

    def equivalent(self, g_a: Tensor, g_b: Tensor) -> tuple[Tensor, Tensor]:
        """g^A (n, r, in) and g^B (n, out, r), with the X that comes closest to g_a and g_b."""
        first_a, first_b = self.at_zero(g_a, g_b)
        right = (g_a - first_a) @ self.a.mT - self.b.mT @ (g_b - first_b)
        x = self._solved(right.double()).to(right.dtype)
        return first_a + x @ self.a, first_b - self.b @ x

    def at_zero(self, g_a: Tensor, g_b: Tensor) -> tuple[Tensor, Tensor]:
        """The same with X = 0."""
        inverse_b = self.of_b.inverse(self.damping, self.b)
        y = g_b @ self.of_a.inverse(self.damping, self.a) / self.scale**2
        beside = y - self.b @ (inverse_b @ (self.b.mT @ y))  # never (out, out)
        return inverse_b @ g_a / self.scale**2, beside

    def whole(self, g_a: Tensor, g_b: Tensor) -> Tensor:
        """G~ (n, out, in), the same for every X."""
        new_a, new_b = self.at_zero(g_a, g_b)
        return self.scale * (self.b @ new_a + new_b @ self.a)

    def _solved(self, right: Tensor) -> Tensor:
        """The X of ``B^T B X + X A A^T = right`` (n, r, r)."""
        turned = self.of_b.vectors.mT @ right @ self.of_a.vectors
        sums = self.of_b.values.unsqueeze(-1) + self.of_a.values.unsqueeze(-2)
        solved = torch.where(sums > 0, turned / sums, 0.0)
        return self.of_b.vectors @ solved @ self.of_a.vectors.mT


def _adam(g: Tensor, memory: Memory, group: Group) -> Tensor:
    """Adam's direction N for a gradient of W."""
    b1, b2 = group["betas"]
    if not memory:
        memory |= {"step": 0, "mean": torch.zeros_like(g), "square": torch.zeros_like(g)}
    memory["step"] += 1
    mean: Tensor = memory["mean"].lerp_(g, 1.0 - b1)
    square: Tensor = memory["square"].mul_(b2).addcmul_(g, g, value=1.0 - b2)
    root = (square / (1.0 - b2 ** memory["step"])).sqrt_().add_(group["eps"])
    n: Tensor = (mean / (1.0 - b1 ** memory["step"])).div_(root)
    return n
