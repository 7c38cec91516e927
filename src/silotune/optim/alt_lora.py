"""AltLoRA (Yu et al. 2025, arXiv 2505.12455): A and B in turn, each as W would move.

While B stays, the step of A that comes closest to one along W's own gradient G is along

    g = (B^T B)^-1 gA / s^2        so that W moves along P_B G

and momentum, which was gathered with another B, is first projected on this one:

    M <- b1 (B^T B)^-1 B^T B_old M + (1 - b1) g,    A <- A - eta (M / (1 - b1^t) + lambda A)

and for B while A stays, with g = gB (A A^T)^-1 / s^2 and M A_old A^T (A A^T)^-1. t counts the steps
of the factor itself, and the correction of bias is that of the authors' code. AltLoRA+ divides by
Adam's sqrt(v / (1 - b2^t)) + eps, where v is the mean of g^2.

Without damping AltLoRA's sequence of B A is the same for (A, B) and (T^-1 A, B T); AltLoRA+'s is
not. One factor is common in every step, so noise enters B A linearly there.

Under privacy the noise in gA is divided by the small eigenvalues of B^T B while B is near 0:
damping, which is added to them (and to those of A A^T), bounds that; the authors' code has 1e-3.
At B = 0 gA is all noise, and A stays.

State: M and the other factor as it was, r (out + in) numbers each, and v in AltLoRA+.

Shapes: out, in = features of a site, r = rank, n = sites of a stack.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from silotune.core import Key, Role

from .base import Moves
from .pairs import PairOptimizer, Stack, State, check_damping, gram, without_pairs


@dataclass(frozen=True, kw_only=True)
class AltLoRA:
    """AltLoRA for every pair; SGD or AdamW for heads and whatever else is trained.

    Attributes:
        learning_rate: eta of round 0.
        scale: s, the adapter's.
        momentum: b1; M is a mean, so steps are not longer for it. For heads likewise.
        square: b2 of AltLoRA+, whose heads are moved by AdamW; None is AltLoRA, with SGD.
        weight_decay: lambda, decoupled; of heads under SGD it is added to the gradient.
        damping: added to the eigenvalues of B^T B and A A^T.
        eps: of AltLoRA+.

    Raises:
        ValueError: if the damping is negative.
    """

    moves_pairs: ClassVar[Moves] = Moves.ONE

    learning_rate: float
    scale: float
    momentum: float = 0.9
    square: float | None = None
    weight_decay: float = 0.0
    damping: float = 1e-3
    eps: float = 1e-8

    def __post_init__(self) -> None:
        check_damping(self.damping)

    def build(
        self, tensors: Mapping[Key, nn.Parameter], learning_rate: float
    ) -> torch.optim.Optimizer:
        """A stack at a time."""

        def move(stack: Stack, state: State) -> None:
            (role,) = stack.roles
            a, b = stack.values(Role.A).mT, stack.values(Role.B)  # tall, as all that follows
            moved, stays, g = (
                (a, b, stack.gradients(role).mT)
                if role is Role.A
                else (b, a, stack.gradients(role))
            )
            m = self._direction(state.setdefault(role, {}), stays, g)
            step = -learning_rate * (m + self.weight_decay * moved)
            stack.move(role, step.mT if role is Role.A else step)

        rest = without_pairs(tensors)
        inner = self._inner(rest, learning_rate) if rest else None
        return PairOptimizer(tensors, self.moves_pairs, move, inner)

    def _direction(self, memory: State, stays: Tensor, gradient: Tensor) -> Tensor:
        """What a factor with gradient (n, rows, r) moves against, while the other one stays."""
        inverse = gram(stays).inverse(self.damping, stays)
        g = gradient @ inverse / self.scale**2
        if not memory:
            memory |= {"step": 0, "mean": torch.zeros_like(g), "other": stays}
            memory |= {} if self.square is None else {"square": torch.zeros_like(g)}
        memory["step"] += 1
        carried = memory["mean"] @ (memory["other"].mT @ stays @ inverse)
        memory["mean"] = self.momentum * carried + (1.0 - self.momentum) * g
        memory["other"] = stays
        m: Tensor = memory["mean"] / (1.0 - self.momentum ** memory["step"])
        if self.square is None:
            return m
        v = memory["square"].mul_(self.square).addcmul_(g, g, value=1.0 - self.square)
        root = (v / (1.0 - self.square ** memory["step"])).sqrt_()
        return m.div_(root.add_(self.eps))

    def _inner(
        self, rest: Mapping[Key, nn.Parameter], learning_rate: float
    ) -> torch.optim.Optimizer:
        if self.square is None:
            return torch.optim.SGD(
                rest.values(),
                lr=learning_rate,
                momentum=self.momentum,
                dampening=self.momentum,
                weight_decay=self.weight_decay,
            )
        return torch.optim.AdamW(
            rest.values(),
            lr=learning_rate,
            betas=(self.momentum, self.square),
            eps=self.eps,
            weight_decay=self.weight_decay,
        )
