"""Pairs B A of equal shapes, stacked: one batched operation for all of them, no loop over sites.

A pair optimiser is a function that moves one such stack. Everything else that trains, and what the
function leaves to it, is moved by an inner torch optimiser.

All of it acts on gradients that are clipped and noised already, and on tensors made of such
gradients: post-processing, so the privacy guarantee stays as it is. What it does to the *noise* is
another matter. The methods divide by B^T B or by the triangle of B, and while B is near 0, as at
the start of a run, they magnify the noise in the gradient of A, which holds hardly any signal then.

Shapes: out, in = features of a site, r = rank, n = sites of a stack, rows = out or in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from silotune.algebra import NumericalError, eigh
from silotune.core import Key, Role

from .base import Moves

PAIR = (Role.A, Role.B)

State = dict[Any, Any]


@dataclass(frozen=True, eq=False)
class Stack:
    """Pairs of equal shapes of which the same factors have a gradient in this step."""

    sites: tuple[str, ...]
    factors: Mapping[Role, Sequence[nn.Parameter]]  # of every site: A (r, in), B (out, r)

    @property
    def roles(self) -> frozenset[Role]:
        """The factors that have a gradient."""
        return frozenset(role for role, ps in self.factors.items() if ps[0].grad is not None)

    def values(self, role: Role) -> Tensor:
        """(n, r, in) or (n, out, r)."""
        return torch.stack([p.detach() for p in self.factors[role]])

    def gradients(self, role: Role) -> Tensor:
        """In the shape of ``values``.

        Raises:
            NumericalError: if one is not finite.
        """
        stacked = torch.stack([p.grad for p in self.factors[role] if p.grad is not None])
        if not stacked.isfinite().all():
            bad = stacked.isfinite().flatten(1).all(dim=1).tolist().index(False)
            raise NumericalError(
                f"{self.sites[bad]}: the gradient of {role} is not finite; lower "
                "train.learning_rate"
            )
        return stacked

    def replace_gradients(self, role: Role, gradients: Tensor) -> None:
        """Leave other gradients for the optimiser that takes the step."""
        for p, g in zip(self.factors[role], gradients, strict=True):
            p.grad = g

    def move(self, role: Role, steps: Tensor) -> None:
        """Add a step to every factor."""
        for p, step in zip(self.factors[role], steps, strict=True):
            p.add_(step)


Move = Callable[[Stack, State], None]
"""Moves a stack, or replaces its gradients; the dictionary is its memory, empty at first."""


class PairOptimizer(torch.optim.Optimizer):
    """Gives every stack of pairs to a function, then lets the inner optimiser take its step.

    The hooks of wrappers come before both.

    Attributes:
        memory: of every stack, under the names of its sites; the inner optimiser has ``state``.
    """

    def __init__(
        self,
        tensors: Mapping[Key, nn.Parameter],
        moves: Moves,
        move: Move,
        inner: torch.optim.Optimizer | None,
    ) -> None:
        """Of ``tensors``, ``inner`` moves what it was built for, if there is any."""
        super().__init__(tensors.values(), {})
        self._tensors, self._moves, self._move, self._inner = dict(tensors), moves, move, inner
        self._stack_of: dict[str, tuple[str, ...]] = {}
        self.memory: defaultdict[tuple[str, ...], State] = defaultdict(dict)
        if inner:
            self.state = inner.state

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Move everything that has a gradient.

        Raises:
            NumericalError: if a gradient is not finite, or the pair's small matrices are not.
            ValueError: if a pair has gradients of other factors than the method moves, or other
                pairs train than in the steps before.
        """
        assert closure is None, "the engine computes gradients itself"
        for stack in stacks(self._tensors):
            if not self._moves.allow(stack.roles):
                raise ValueError(
                    f"{stack.sites[0]}: a pair optimiser needs gradients of {self._moves} in every "
                    f"step, and got {' and '.join(sorted(stack.roles))}"
                )
            if any(self._stack_of.setdefault(s, stack.sites) != stack.sites for s in stack.sites):
                raise ValueError("a pair optimiser needs the same pairs in every step of a round")
            self._moved(stack)
        if self._inner:
            self._inner.step()

    def _moved(self, stack: Stack) -> None:
        try:
            self._move(stack, self.memory[stack.sites])
        except NumericalError as error:
            raise NumericalError(
                f"{stack.sites[0]} and its like: {error}; lower train.learning_rate"
            ) from error


def stacks(tensors: Mapping[Key, nn.Parameter]) -> list[Stack]:
    """Every pair with a gradient, by shape, type, place and which gradients there are."""
    alike: dict[object, list[Key]] = defaultdict(list)
    for a in tensors:
        b = Key(a.site, Role.B)
        if a.role is Role.A and b in tensors:
            pair = tensors[a], tensors[b]
            trained = tuple(p.grad is not None for p in pair)
            if any(trained):
                alike[tuple((p.shape, p.dtype, p.device) for p in pair), trained].append(a)
    return [
        Stack(
            tuple(key.site for key in keys),
            {role: [tensors[Key(k.site, role)] for k in keys] for role in PAIR},
        )
        for keys in alike.values()
    ]


def without_pairs(tensors: Mapping[Key, nn.Parameter]) -> dict[Key, nn.Parameter]:
    """What belongs to no pair: heads and the like."""
    pairs = {k.site for k in tensors if k.role is Role.B and Key(k.site, Role.A) in tensors}
    return {k: p for k, p in tensors.items() if k.site not in pairs or k.role not in PAIR}


@dataclass(frozen=True, eq=False)
class Gram:
    """X^T X of tall matrices X (n, rows, r), as its eigenvalues and eigenvectors in float64.

    An eigenvalue that is 0 but for rounding is 0, so that a factor of lower rank, and B = 0 above
    all, has a pseudo-inverse. Rounding is that of X's own type.
    """

    values: Tensor  # (n, r), not negative
    vectors: Tensor  # (n, r, r), as columns

    def inverse(self, damping: float, like: Tensor) -> Tensor:
        """(X^T X)^+ (n, r, r): with 1 / (value + damping) where a value is not 0."""
        weights = torch.where(self.values > 0, 1.0 / (self.values + damping), 0.0)
        whole: Tensor = (self.vectors * weights.unsqueeze(-2)) @ self.vectors.mT
        return whole.to(like.dtype)


def gram(x: Tensor) -> Gram:
    """Of x (n, rows, r)."""
    x64 = x.double()
    values, vectors = eigh(x64.mT @ x64)
    return Gram(values.where(values > _zero(x) * values[..., -1:], 0.0), vectors)


def _zero(x: Tensor) -> float:
    """Below this part of the largest eigenvalue of X^T X there is nothing but rounding."""
    rows = x.shape[-2]
    return max((rows * torch.finfo(x.dtype).eps) ** 2, rows * torch.finfo(torch.float64).eps)


def check_damping(damping: float) -> None:
    """Refuse what would make inverses larger.

    Raises:
        ValueError: if it is negative, or no number.
    """
    if not damping >= 0.0:
        raise ValueError(f"method.damping: must not be negative, not {damping}")
