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

The escaped mass rho is left out unless asked for, as in the authors' code. Of what that code adds
to the paper, one thing is here: where the norm of g~ over both factors of all pairs is above
``clip_unmagnified_grad``, every g~ is divided by as much. That is invariant as well. The other is
left out: it skips a step whose g~ has an RMS above 1, which may freeze training without a word.

T^+ takes singular values of T below ``cutoff`` of the largest for 0. By default that is rounding
alone, 10 r times the precision of the factors' type, so that steps stay invariant where factors are
ill-conditioned (1e3 in float32). Directions that gradients never had are then told from rounding by
little, and a step there is huge; a cut-off of 1e-3 protects, and gives invariance up beyond it.

Under privacy the noise in g_A is multiplied by T^+ of B, which is huge while B is near 0, and the
first step after that is one of full size in a direction made of noise: all singular values of
g~ V^(-1/2) are equal. There is no damping, since it would depend on the factorisation. Let B grow
first, or freeze A.

State: 2 r (out + in) numbers, as Adam, and 2 r^2 + 2 more: with A and B each ``mean``
(rows, r), ``basis`` (r, rows of the other), ``square`` (r, r) and ``escaped``.

Shapes: out, in = features of a site, r = rank, n = sites of a stack, rows = out or in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from silotune.core import Key, Role
from silotune.linalg import eigh, eigvalsh, pinv, qr

from .base import Moves
from .pair_optimizer import Memory, PairOptimizer, Stack
from .param_groups import PAIRS, Group, groups_of, pairs_of

TYPES = (torch.float32, torch.float64)


class LoRARITE(PairOptimizer):
    """LoRA-RITE for every pair; AdamW for heads and whatever else is trained.

    The rate does not absorb the adapter's scale s: the model moves in proportion to it.

    Args:
        params: the groups of ``lora_params``.
        lr: eta.
        betas: b1 and b2; AdamW's as well.
        eps: added to the square roots of the eigenvalues of V + rho. AdamW's is 1e-8, in the group
            of the rest.
        weight_decay: lambda, decoupled.
        escape: keep the escaped mass rho, which shortens steps after the basis has turned.
        clip_unmagnified_grad: largest norm of all g~ together, as in the authors' code; 0 for none.
        cutoff: part of the largest singular value of a factor below which one is 0; None for
            rounding.

    Raises:
        ValueError: if a number makes no sense, or a pair is not in float32 or float64.
    """

    moves_pairs: ClassVar[Moves] = Moves.BOTH
    rest_defaults: ClassVar[Mapping[str, object]] = {"eps": 1e-8}
    in_float64: ClassVar[frozenset[str]] = frozenset({"square", "escaped"})

    def __init__(
        self,
        params: list[Group],
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        escape: bool = False,
        clip_unmagnified_grad: float = 1.0,
        cutoff: float | None = None,
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "escape": escape,
            "clip_unmagnified_grad": clip_unmagnified_grad,
            "cutoff": cutoff,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: Group) -> None:
        """As for every pair optimiser; a pair must be in float32 or float64."""
        super().add_param_group(param_group)
        if param_group["kind"] == PAIRS:
            for name, a, b in pairs_of(self.param_groups[-1]):
                if a.dtype not in TYPES or b.dtype not in TYPES:
                    raise ValueError(
                        f"LoRARITE: {name} is in {a.dtype}; keep A and B in float32, as PEFT does "
                        "with autocast_adapter_dtype=True"
                    )

    def move_pairs(self) -> None:
        """Both factors of every pair, each in the basis of the other as it was.

        All gradients are brought into their bases first: they are clipped together.
        """
        found = []
        for stack, group in self.stacks():
            with stack.named():
                found.append((stack, group, _unmagnified(stack, group["cutoff"])))
        norm = _norm([u.gradient for *_, pair in found for u in pair])
        for stack, group, pair in found:
            with stack.named():
                _move(stack, group, [u.clipped(norm, group) for u in pair])


@dataclass(frozen=True, kw_only=True)
class LoRARITEConfig:
    """``LoRARITE`` with these numbers.

    Attributes:
        lr: eta of round 0.
        weight_decay: lambda, decoupled.
        betas: b1 and b2.
        eps: added to the square roots of the eigenvalues of V + rho.
        escape: keep the escaped mass rho.
        clip_unmagnified_grad: largest norm of all g~ together; 0 for none.
        cutoff: part of the largest singular value of a factor below which one is 0; None for
            rounding.
    """

    moves_pairs: ClassVar[Moves] = LoRARITE.moves_pairs
    basis_free: ClassVar[bool] = True

    lr: float
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-6
    escape: bool = False
    clip_unmagnified_grad: float = 1.0
    cutoff: float | None = None

    def build(self, tensors: Mapping[Key, nn.Parameter], lr: float) -> LoRARITE:
        """The scale does not matter to it."""
        return LoRARITE(
            groups_of(tensors),
            lr=lr,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
            escape=self.escape,
            clip_unmagnified_grad=self.clip_unmagnified_grad,
            cutoff=self.cutoff,
        )


class _Unmagnified(NamedTuple):
    """A factor's gradient in the basis of the other factor, and that basis."""

    gradient: Tensor  # g~ (n, rows, r)
    basis: Tensor  # Q (n, rows of the other, r)
    inverse: Tensor  # T^+ (n, r, r)

    def clipped(self, norm: Tensor, group: Group) -> _Unmagnified:
        """With as much of the gradient as the norm of all of them leaves."""
        largest = group["clip_unmagnified_grad"]
        if not largest:
            return self
        part = (largest / norm).clamp(max=1.0)
        return self._replace(gradient=self.gradient * part.to(self.gradient))


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    """The L2 norm of all of them together, in float64."""
    if not tensors:
        return torch.zeros((), dtype=torch.float64)
    squares = [t.double().square().sum().to(tensors[0].device) for t in tensors]
    return torch.stack(squares).sum().sqrt()


def _unmagnified(stack: Stack, cutoff: float | None) -> tuple[_Unmagnified, _Unmagnified]:
    """Of A, in the basis of B; and of B, in that of A^T."""

    def one(other: Tensor, gradient: Tensor) -> _Unmagnified:
        basis, triangle = qr(other)
        inverse = _inverse(triangle, other, cutoff)
        return _Unmagnified(gradient @ inverse, basis, inverse)

    return (
        one(stack.values(Role.B), stack.gradients(Role.A).mT),
        one(stack.values(Role.A).mT, stack.gradients(Role.B)),
    )


def _move(stack: Stack, group: Group, pair: Sequence[_Unmagnified]) -> None:
    """A step of A and B."""
    left, right = stack.values(Role.A).mT, stack.values(Role.B)
    of_left, of_right = stack.memory(Role.A), stack.memory(Role.B)
    in_right = _direction(of_left, group, left, pair[0])
    in_left = _direction(of_right, group, right, pair[1])
    stack.remember(Role.A, of_left)
    stack.remember(Role.B, of_right)
    stack.move(Role.A, -group["lr"] * in_right.mT)
    stack.move(Role.B, -group["lr"] * in_left)


def _direction(memory: Memory, group: Group, x: Tensor, found: _Unmagnified) -> Tensor:
    """What ``x`` (n, rows, r) moves against, in the basis of the other factor."""
    g, basis = found.gradient, found.basis
    if not memory:
        memory |= _nothing(g, basis)
    memory["step"] += 1
    b1, b2 = (decay(b, memory["step"]) for b in group["betas"])
    turn = basis.mT @ memory["basis"].mT
    square = _turned(memory["square"], turn.double())
    if group["escape"]:
        memory["escaped"] = b2 * (memory["escaped"] + _lost(memory["square"], square))
    memory["square"] = (1.0 - b2) * _square(g) + b2 * square
    root = _inverse_root(memory["square"], memory["escaped"], group["eps"])
    memory["mean"] = (1.0 - b1) * (g @ root.to(g)) + b1 * (memory["mean"] @ turn.mT)
    memory["basis"] = basis.mT  # as QR leaves it: contiguous
    step: Tensor = memory["mean"] @ found.inverse.mT + group["weight_decay"] * x
    return step


def decay(b: float, step: int) -> float:
    """The decay rate of a mean that is free of bias in every step 1, 2, ..: 0 in the first."""
    return float(b * (1.0 - b ** (step - 1)) / (1.0 - b**step))


def _nothing(g: Tensor, basis: Tensor) -> Memory:
    """The memory before the first step; small matrices are in float64."""
    n, rank = g.shape[0], g.shape[-1]
    return {
        "step": 0,
        "mean": torch.zeros_like(g),
        "basis": torch.zeros_like(basis.mT),
        "square": g.new_zeros(n, rank, rank, dtype=torch.float64),
        "escaped": g.new_zeros(n, dtype=torch.float64),
    }


def _inverse(triangle: Tensor, other: Tensor, cutoff: float | None) -> Tensor:
    """T^+; what is 0 but for rounding in the other factor's type is 0."""
    rounding = 10 * other.shape[-1] * torch.finfo(other.dtype).eps
    return pinv(triangle.double(), rounding if cutoff is None else cutoff).to(other.dtype)


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
