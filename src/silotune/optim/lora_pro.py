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
from typing import ClassVar

import torch
from torch import Tensor, nn

from silotune.core import Key, Role

from .base import Moves
from .pairs import Gram, PairOptimizer, Stack, State, check_damping, gram, without_pairs
from .torch_optim import AdamW

B1, B2, EPS = 0.9, 0.999, 1e-8  # torch's AdamW has the same


@dataclass(frozen=True, kw_only=True)
class LoRAPro:
    """LoRA-Pro for every pair; AdamW for heads and whatever else is trained.

    Attributes:
        learning_rate: of round 0.
        scale: s, the adapter's.
        weight_decay: decoupled, of A and B.
        damping: added to the eigenvalues of B^T B and A A^T that are inverted.
        full_moments: the means of Adam are those of G~, 2 out in numbers for every layer.

    Raises:
        ValueError: if the damping is negative.
    """

    moves_pairs: ClassVar[Moves] = Moves.BOTH

    learning_rate: float
    scale: float
    weight_decay: float = 0.0
    damping: float = 1e-8
    full_moments: bool = False

    def __post_init__(self) -> None:
        check_damping(self.damping)

    def build(
        self, tensors: Mapping[Key, nn.Parameter], learning_rate: float
    ) -> torch.optim.Optimizer:
        """A stack at a time, before AdamW or instead of it."""

        def replace(stack: Stack, _: State) -> None:
            new_a, new_b = self._pair(stack).equivalent(*_gradients(stack))
            stack.replace_gradients(Role.A, new_a)
            stack.replace_gradients(Role.B, new_b)

        def move(stack: Stack, state: State) -> None:
            pair = self._pair(stack)
            n = _adam(pair.whole(*_gradients(stack)), state)
            new_a, new_b = pair.equivalent(
                self.scale * (pair.b.mT @ n), self.scale * (n @ pair.a.mT)
            )
            stack.move(Role.A, -learning_rate * (new_a + self.weight_decay * pair.a))
            stack.move(Role.B, -learning_rate * (new_b + self.weight_decay * pair.b))

        adamw = AdamW(learning_rate=learning_rate, weight_decay=self.weight_decay)
        rest = without_pairs(tensors) if self.full_moments else tensors
        inner = adamw.build(rest, learning_rate) if rest else None
        how = move if self.full_moments else replace
        return PairOptimizer(tensors, self.moves_pairs, how, inner)

    def _pair(self, stack: Stack) -> Pair:
        return Pair(stack.values(Role.A), stack.values(Role.B), self.scale, self.damping)


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


def _gradients(stack: Stack) -> tuple[Tensor, Tensor]:
    return stack.gradients(Role.A), stack.gradients(Role.B)


def _adam(g: Tensor, state: State) -> Tensor:
    """Adam's direction N for a gradient of W."""
    if "step" not in state:
        state |= {"step": 0, "mean": torch.zeros_like(g), "square": torch.zeros_like(g)}
    state["step"] += 1
    mean: Tensor = state["mean"].lerp_(g, 1.0 - B1)
    square: Tensor = state["square"].mul_(B2).addcmul_(g, g, value=1.0 - B2)
    root = (square / (1.0 - B2 ** state["step"])).sqrt_().add_(EPS)
    n: Tensor = (mean / (1.0 - B1 ** state["step"])).div_(root)
    return n
