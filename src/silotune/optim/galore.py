"""GaLore (Zhao et al. 2024, arXiv 2403.03507): AdamW inside a moving subspace of the gradient.

For a whole matrix D (out, in) with gradient G, in its step t = 0, 1, .. (counted from the first
gradient that is not zero)

    t mod gap = 0:  P = top r singular vectors of G on its smaller side
    R = G P  (out, r)  if out >= in,    R = P^T G  (r, in)  otherwise
    N = m' / (sqrt(v') + eps),  m', v' = bias-corrected means of R and R^2
    D <- (1 - eta lambda) D - eta scale N P^T    (or P N)

The moments are carried over unchanged when P changes, as in the paper and its code. Between two
changes D moves within r dimensions of its smaller side. State: 2 r max(out, in) + r min(out, in)
numbers, where AdamW has 2 out in.

P is computed from the gradient that the optimiser is given. If that gradient is private, so is P:
everything here is post-processing. A P from the raw gradient would be a release of its own.

Shapes: out, in = features of a site; large, small = the larger and smaller of them; r = rank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from silotune.algebra import NumericalError, eigh
from silotune.core import Key, Role

from .base import Moves


@dataclass(frozen=True, kw_only=True)
class GaLore:
    """Projected AdamW for whole matrices (role D); AdamW for heads and whatever else is trained.

    The paper's code projects attention and MLP matrices only, never a head. A D whose smaller side
    is at most the rank needs no projector (P = I): plain AdamW at the rate eta scale.

    Its state begins afresh every round, as all local state does. So the first gradient of a round
    chooses the subspace, and with gap >= local steps it is the only one that does.

    Attributes:
        learning_rate: eta of round 0.
        rank: r.
        gap: steps between two choices of P; the paper has 200 (pretraining) to 500 (GLUE).
        scale: the paper's alpha, a factor on the step of D and on nothing else; it has 0.25
            (pretraining) to 4 (GLUE).
        weight_decay: lambda, decoupled. It shrinks D itself: towards the base model, not zero.
        betas: decay rates of the two means.
        eps: added to sqrt(v'), as in the paper; its code adds it before the bias correction.

    Raises:
        ValueError: if rank or gap is not positive.
    """

    moves_pairs: ClassVar[Moves] = Moves.ANYTHING

    learning_rate: float
    rank: int
    gap: int = 200
    scale: float = 1.0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"method.r: the rank must be at least 1, not {self.rank}")
        if self.gap < 1:
            raise ValueError(f"method.galore_gap: must be at least 1 step, not {self.gap}")

    def build(
        self, tensors: Mapping[Key, nn.Parameter], learning_rate: float
    ) -> torch.optim.Optimizer:
        """One group over all tensors; which are projected follows from role and shape."""
        return _GaLore(self, tensors, learning_rate)


class _GaLore(torch.optim.Optimizer):
    """State by tensor: step, mean, square, and basis P (small, r) where there is one."""

    def __init__(
        self, choice: GaLore, tensors: Mapping[Key, nn.Parameter], learning_rate: float
    ) -> None:
        super().__init__(tensors.values(), {"lr": learning_rate})
        self._choice, self._tensors = choice, dict(tensors)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Move every tensor that has a gradient.

        Raises:
            NumericalError: if a gradient is not finite.
        """
        assert closure is None, "the engine computes gradients itself"
        rate = self.param_groups[0]["lr"]
        for key, p in self._tensors.items():
            if p.grad is None:
                continue
            if not p.grad.isfinite().all():
                raise NumericalError(
                    f"{key}: its gradient is not finite; lower train.learning_rate"
                )
            p.mul_(1.0 - rate * self._choice.weight_decay)
            if key.role is Role.D:
                self._move_matrix(p, p.grad, rate * self._choice.scale)
            else:
                p.sub_(rate * self._direction(p, p.grad))

    def _move_matrix(self, p: nn.Parameter, gradient: Tensor, rate: float) -> None:
        state, rank = self.state[p], self._choice.rank
        if min(p.shape) <= rank:
            p.sub_(rate * self._direction(p, gradient))
            return
        tall = p.shape[0] >= p.shape[1]
        g = gradient if tall else gradient.mT  # (large, small)
        due = "basis" not in state or state["step"] % self._choice.gap == 0
        if due and g.any():  # a zero gradient has no directions: keep the old ones
            state["basis"] = top_directions(g, rank)
        if "basis" in state:
            basis = state["basis"]
            (p if tall else p.mT).addmm_(self._direction(p, g @ basis), basis.mT, alpha=-rate)

    def _direction(self, p: nn.Parameter, r: Tensor) -> Tensor:
        """AdamW's N for a gradient ``r``, which has the same shape in every step."""
        state, (b1, b2) = self.state[p], self._choice.betas
        if "step" not in state:
            state |= {"step": 0, "mean": torch.zeros_like(r), "square": torch.zeros_like(r)}
        step = state["step"] = state["step"] + 1
        mean: Tensor = state["mean"].mul_(b1).add_(r, alpha=1.0 - b1)
        square: Tensor = state["square"].mul_(b2).addcmul_(r, r, value=1.0 - b2)
        root = (square / (1.0 - b2**step)).sqrt_()
        n: Tensor = (mean / (1.0 - b1**step)).div_(root.add_(self._choice.eps))
        return n


def top_directions(g: Tensor, rank: int) -> Tensor:
    """The leading ``rank`` right singular vectors of g (large, small), as columns (small, rank).

    They are the eigenvectors of g^T g, in float64 since that squares the condition number: cheaper
    than an SVD of g, whose failures to converge are GaLore's best known trouble. Each is signed so
    that its largest entry is positive: the moments of the step before are carried over, and a sign
    must not flip by chance.
    """
    g64 = g.double()
    vectors = eigh(g64.mT @ g64)[1][:, -rank:].flip(1)
    largest = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))
    return (vectors * largest.sign()).to(g.dtype).contiguous()
