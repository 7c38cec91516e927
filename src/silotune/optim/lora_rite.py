"""LoRA-RITE (Yen et al. 2024, arXiv 2410.20625): steps that do not depend on how W is factored.

(A, B) and (T^-1 A, B T) are the same model, and Adam moves them differently. Here the sequence of
products B A is the same for every invertible T. With the tall factors L = A^T (in, r) and
R = B (out, r), and b(t) = b (1 - b^(t-1)) / (1 - b^t) in step t = 1, 2, .., L moves in the basis
of R:

    R = Q T                                       QR; the paper's text has the polar decomposition
    g~ = g_L T^+                                  unmagnified: s G^T Q, whatever T
    P = Q^T Q_old                                 from the basis of the step before
    V^ = P V P^T,   d = what V has lost by that
    V <- (1 - b2(t)) g~^T g~ / in + b2(t) V^,     rho <- b2(t) (rho + d)
    M <- (1 - b1(t)) g~ (V + rho)^(-1/2) + b1(t) M P^T
    L <- L - eta (M T^(+T) + lambda L)

and R likewise in the basis of L, from the same factors. T^+ is a pseudo-inverse, so a step at B = 0
moves B alone. With b(1) = 0 nothing needs another correction of bias. Division by the rows of g~
(in) is the authors' code's and not the paper's: as in Adam, an entry then moves by about eta.

The escaped mass rho is left out unless asked for, as in the authors' code. Also left out are what
that code adds to the paper: it skips a step whose g~ has an RMS above 1, which may freeze
training without a word, and clips g~ over all sites.

Under privacy the noise in g_A is multiplied by T^+ of B, which is huge while B is near 0, and the
first step after that is one of full size in a direction made of noise: all singular values of
g~ V^(-1/2) are equal. There is no damping, since it would depend on the factorisation. Let B grow
first, or freeze A.

State: 2 r (out + in) numbers, as Adam, and 2 r^2 + 2 more.

Shapes: out, in = features of a site, r = rank, n = sites of a stack, rows = out or in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from silotune.algebra import eigh, eigvalsh, pinv, qr
from silotune.core import Key, Role

from .base import Moves
from .pairs import PairOptimizer, Stack, State, without_pairs
from .torch_optim import AdamW


@dataclass(frozen=True, kw_only=True)
class LoRARite:
    """LoRA-RITE for every pair; AdamW for heads and whatever else is trained.

    The rate does not absorb the adapter's scale s: the model moves in proportion to it.

    Attributes:
        learning_rate: eta of round 0.
        weight_decay: lambda, decoupled.
        betas: b1 and b2.
        eps: added to the square roots of the eigenvalues of V + rho.
        escape: keep the escaped mass rho, which shortens steps after the basis has turned.
    """

    moves_pairs: ClassVar[Moves] = Moves.BOTH

    learning_rate: float
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-6
    escape: bool = False

    def build(
        self, tensors: Mapping[Key, nn.Parameter], learning_rate: float
    ) -> torch.optim.Optimizer:
        """A stack at a time."""
        rest = without_pairs(tensors)
        adamw = AdamW(learning_rate=learning_rate, weight_decay=self.weight_decay)

        def move(stack: Stack, state: State) -> None:
            left, right = stack.values(Role.A).mT, stack.values(Role.B)
            in_right = self._direction(
                state.setdefault(Role.A, {}), left, right, stack.gradients(Role.A).mT
            )
            in_left = self._direction(
                state.setdefault(Role.B, {}), right, left, stack.gradients(Role.B)
            )
            stack.move(Role.A, -learning_rate * in_right.mT)
            stack.move(Role.B, -learning_rate * in_left)

        inner = adamw.build(rest, learning_rate) if rest else None
        return PairOptimizer(tensors, self.moves_pairs, move, inner)

    def _direction(self, memory: State, x: Tensor, other: Tensor, gradient: Tensor) -> Tensor:
        """What ``x`` (n, rows, r) moves against, in the basis of the other factor."""
        basis, triangle = qr(other)
        inverse = _inverse(triangle, other)
        g = gradient @ inverse
        if not memory:
            memory |= _nothing(g, basis)
        memory["step"] += 1
        b1, b2 = (decay(b, memory["step"]) for b in self.betas)
        turn = basis.mT @ memory["basis"]
        square = _turned(memory["square"], turn.double())
        if self.escape:
            memory["escaped"] = b2 * (memory["escaped"] + _lost(memory["square"], square))
        memory["square"] = (1.0 - b2) * _square(g) + b2 * square
        root = _inverse_root(memory["square"], memory["escaped"], self.eps)
        memory["mean"] = (1.0 - b1) * (g @ root.to(g)) + b1 * (memory["mean"] @ turn.mT)
        memory["basis"] = basis
        step: Tensor = memory["mean"] @ inverse.mT + self.weight_decay * x
        return step


def decay(b: float, step: int) -> float:
    """The decay rate of a mean that is free of bias in every step 1, 2, ..: 0 in the first."""
    return float(b * (1.0 - b ** (step - 1)) / (1.0 - b**step))


def _nothing(g: Tensor, basis: Tensor) -> State:
    """The memory before the first step; small matrices are in float64."""
    n, rank = g.shape[0], g.shape[-1]
    return {
        "step": 0,
        "mean": torch.zeros_like(g),
        "basis": torch.zeros_like(basis),
        "square": g.new_zeros(n, rank, rank, dtype=torch.float64),
        "escaped": g.new_zeros(n, dtype=torch.float64),
    }


def _inverse(triangle: Tensor, other: Tensor) -> Tensor:
    """T^+; what is 0 but for rounding in the other factor's type is 0."""
    rounding = other.shape[-2] * torch.finfo(other.dtype).eps
    return pinv(triangle.double(), rounding).to(other.dtype)


def _square(g: Tensor) -> Tensor:
    """g^T g / rows."""
    g64 = g.double()
    return g64.mT @ g64 / g.shape[-2]


def _turned(square: Tensor, turn: Tensor) -> Tensor:
    """P V P^T, symmetric to the last bit."""
    whole = turn @ square @ turn.mT
    return (whole + whole.mT) / 2


def _lost(before: Tensor, after: Tensor) -> Tensor:
    """The escaped mass (n,): the largest loss of an eigenvalue, at most the loss of trace."""
    old, new = eigvalsh(before), eigvalsh(after)
    loss = old - new
    return torch.minimum(loss.amax(dim=-1), loss.sum(dim=-1)).clamp(min=0.0)


def _inverse_root(square: Tensor, escaped: Tensor, eps: float) -> Tensor:
    """(V + rho)^(-1/2)."""
    values, vectors = eigh(square)
    roots = (values.clamp(min=0.0) + escaped.unsqueeze(-1)).sqrt() + eps
    root: Tensor = (vectors / roots.unsqueeze(-2)) @ vectors.mT
    return root
