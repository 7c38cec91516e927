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

State: M and the other factor as it was, r (out + in) numbers each, and v in AltLoRA+: ``mean``,
``other`` and ``square`` with A and B each, tall.

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
from .pair_optimizer import Memory, PairOptimizer, Stack, gram, step_with
from .param_groups import Group, groups_of, not_negative


class AltLoRA(PairOptimizer):
    """AltLoRA for every pair; SGD or AdamW for heads and whatever else is trained.

    Args:
        params: the groups of ``lora_params``, which know every pair's scale s.
        lr: eta.
        momentum: b1; M is a mean, so steps are not longer for it. For heads likewise.
        square: b2 of AltLoRA+, whose heads are moved by AdamW; None is AltLoRA, with SGD. All
            groups must agree on which it is.
        eps: of AltLoRA+.
        weight_decay: lambda, decoupled; of heads under SGD it is added to the gradient.
        damping: added to the eigenvalues of B^T B and A A^T.
        alternate: where both factors of a pair have a gradient, move B in its first step, A in the
            next, and so on, and leave the other's gradient unused. Without it, whoever trains must
            see to it that only one has.

    Raises:
        ValueError: if a number makes no sense.
    """

    moves_pairs: ClassVar[Moves] = Moves.ONE

    def __init__(
        self,
        params: list[Group],
        lr: float = 1e-3,
        *,
        momentum: float = 0.9,
        square: float | None = None,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        damping: float = 1e-3,
        alternate: bool = True,
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "momentum": momentum,
            "square": square,
            "eps": eps,
            "weight_decay": weight_decay,
            "damping": damping,
            "alternate": alternate,
        }
        super().__init__(params, defaults)

    def needs(self, group: Group) -> Moves:
        """One factor, or the group alternates by itself."""
        return Moves.ANYTHING if group["alternate"] else self.moves_pairs

    def move(self, stack: Stack, group: Group) -> None:
        """The one factor whose turn it is."""
        role = _turn(stack)
        a, b = stack.values(Role.A).mT, stack.values(Role.B)  # tall, as all that follows
        moved, stays, g = (
            (a, b, stack.gradients(role).mT) if role is Role.A else (b, a, stack.gradients(role))
        )
        memory = stack.memory(role)
        if memory and role is Role.B:
            memory["other"] = memory["other"].mT
        m = _direction(memory, group, stays, g)
        memory["other"] = stays if role is Role.A else stays.mT  # in the shape of its parameter
        stack.remember(role, memory)
        step = -group["lr"] * (m + group["weight_decay"] * moved)
        stack.move(role, step.mT if role is Role.A else step)

    def move_rest(self) -> None:
        """A step of torch's SGD, or of its AdamW."""
        groups = self._groups_for_torch()
        plus = [
            g | {"betas": (g["momentum"], g["square"])} for g in groups if g["square"] is not None
        ]
        plain = [g | {"dampening": g["momentum"]} for g in groups if g["square"] is None]
        step_with(self._adamw, plus, self.state)
        step_with(self._sgd, plain, self.state)

    @cached_property
    def _sgd(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([torch.zeros(0)])


@dataclass(frozen=True, kw_only=True)
class AltLoRAConfig:
    """``AltLoRA`` with these numbers; the plan's phases alternate.

    Attributes:
        lr: eta of round 0.
        scale: s, the adapter's.
        momentum: b1.
        square: b2 of AltLoRA+; None is AltLoRA.
        weight_decay: lambda, decoupled; of heads under SGD it is added to the gradient.
        damping: added to the eigenvalues of B^T B and A A^T.
        eps: of AltLoRA+.

    Raises:
        ValueError: if the damping is negative.
    """

    moves_pairs: ClassVar[Moves] = AltLoRA.moves_pairs

    lr: float
    scale: float
    momentum: float = 0.9
    square: float | None = None
    weight_decay: float = 0.0
    damping: float = 1e-3
    eps: float = 1e-8

    def __post_init__(self) -> None:
        not_negative("damping", self.damping)

    @property
    def basis_free(self) -> bool:
        """AltLoRA, whose momentum is projected on the factor that stays; AltLoRA+ is not."""
        return self.square is None

    def build(self, tensors: Mapping[Key, nn.Parameter], lr: float) -> AltLoRA:
        """One scale for all pairs."""
        return AltLoRA(
            groups_of(tensors, self.scale),
            lr=lr,
            momentum=self.momentum,
            square=self.square,
            eps=self.eps,
            weight_decay=self.weight_decay,
            damping=self.damping,
            alternate=False,
        )


def _turn(stack: Stack) -> Role:
    """The factor that has a gradient; of two, B if it has not taken more steps than A."""
    if len(stack.roles) == 1:
        (role,) = stack.roles
        return role
    of_a, of_b = (stack.memory(role).get("step", 0) for role in (Role.A, Role.B))
    return Role.B if of_b <= of_a else Role.A


def _direction(memory: Memory, group: Group, stays: Tensor, gradient: Tensor) -> Tensor:
    """What a factor with gradient (n, rows, r) moves against, while the other one stays."""
    momentum, square = group["momentum"], group["square"]
    inverse = gram(stays).inverse(group["damping"], stays)
    g = gradient @ inverse / group["scale"] ** 2
    if not memory:
        memory |= {"step": 0, "mean": torch.zeros_like(g), "other": stays}
        memory |= {} if square is None else {"square": torch.zeros_like(g)}
    memory["step"] += 1
    carried = memory["mean"] @ (memory["other"].mT @ stays @ inverse)
    memory["mean"] = momentum * carried + (1.0 - momentum) * g
    m: Tensor = memory["mean"] / (1.0 - momentum ** memory["step"])
    if square is None:
        return m
    v = memory["square"].mul_(square).addcmul_(g, g, value=1.0 - square)
    root = (v / (1.0 - square ** memory["step"])).sqrt_()
    return m.div_(root.add_(group["eps"]))
