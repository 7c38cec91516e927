"""GaLore (Zhao et al. 2024, arXiv 2403.03507): AdamW inside a moving subspace of the gradient.

For a whole matrix D (out, in) with gradient G, in its step t = 0, 1, .. (counted from the first
gradient that is not zero)

    t mod gap = 0:  P = top r singular vectors of G on its smaller side
    R = G P  (out, r)  if out >= in,    R = P^T G  (r, in)  otherwise
    N = m' / (sqrt(v') + eps),  m', v' = bias-corrected means of R and R^2
    D <- (1 - eta lambda) D - eta scale N P^T    (or P N)

The paper trains W itself, so that lambda shrinks W: told what D stands beside, it shrinks W + D,
``D <- D - eta lambda (W + D) - ..``, which is the paper's step on W.

The moments are carried over unchanged when P changes, as in the paper and its code. Between two
changes D moves within r dimensions of its smaller side. State: 2 r max(out, in) + r min(out, in)
numbers, where AdamW has 2 out in.

P is computed from the gradient that the optimiser is given. If that gradient is private, so is P:
everything here is post-processing. A P from the raw gradient would be a release of its own.

Shapes: out, in = features of a site; large, small = the larger and smaller of them; r = rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from silotune.core import Key
from silotune.linalg import NumericalError, eigh

from .base import Moves
from .param_groups import MATRICES, Group, check_numbers, groups_of, named, run_closure

Decays = Literal["update", "weight"]


class GaLore(torch.optim.Optimizer):
    """Projected AdamW for whole matrices; AdamW for everything else, as in groups of other kinds.

    The paper's code projects attention and MLP matrices only, never a head or an embedding: give
    those in a group with ``"kind": "rest"``. A matrix whose smaller side is at most the rank needs
    no projector (P = I): plain AdamW at the rate eta scale. Tensors of other than two dimensions
    are moved by AdamW at the rate eta.

    ``state`` of a tensor: ``step``, ``mean``, ``square``, and ``basis`` P (small, r) where there is
    one.

    Args:
        params: tensors, or groups; one that does not say its kind is of whole matrices.
        lr: eta.
        rank: r.
        gap: steps between two choices of P; the paper has 200 (pretraining) to 500 (GLUE).
        scale: the paper's alpha, a factor on the step of whole matrices and on nothing else; it has
            0.25 (pretraining) to 4 (GLUE).
        betas: decay rates of the two means.
        eps: added to sqrt(v'), as in the paper; its code adds it before the bias correction.
        weight_decay: lambda, decoupled.

    Attributes:
        decays_base: whether it is to ``stand_beside`` the weights that matrices are added to.

    Raises:
        ValueError: if a number makes no sense.
    """

    decays_base = False

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[Group],
        lr: float = 1e-3,
        *,
        rank: int = 8,
        gap: int = 200,
        scale: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        defaults: dict[str, Any] = {
            "kind": MATRICES,
            "lr": lr,
            "rank": rank,
            "gap": gap,
            "scale": scale,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
        }
        self._beside: dict[nn.Parameter, Callable[[], Tensor]] = {}
        super().__init__(params, defaults)
        if not any(group["kind"] == MATRICES for group in self.param_groups):
            raise ValueError(
                "GaLore: there is no group of whole matrices to project; give their group "
                f'"kind": "{MATRICES}"'
            )

    def add_param_group(self, param_group: Group) -> None:
        """Take up one more group.

        Raises:
            ValueError: if a number makes no sense.
        """
        group = {**self.defaults, **param_group}
        check_numbers("GaLore", group)
        for name in ("rank", "gap"):
            if group[name] < 1:
                raise ValueError(f"GaLore: {name} must be at least 1, not {group[name]}")
        super().add_param_group(param_group)

    def stand_beside(self, bases: Mapping[nn.Parameter, Callable[[], Tensor]]) -> None:
        """Shrink the frozen weights that matrices are added to, along with the matrices.

        Args:
            bases: what gives such a weight, of its matrix's shape.
        """
        self._beside = dict(bases)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from where ``state_dict`` was taken; nothing is shared with it."""
        super().load_state_dict(deepcopy(dict(state_dict)))

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move every tensor that has a gradient.

        Args:
            closure: computes gradients anew and returns the loss.

        Returns:
            The closure's loss, or None without one.

        Raises:
            NumericalError: if a gradient is not finite.
        """
        loss = run_closure(closure)
        for group in self.param_groups:
            for name, p in named(group):
                if p.grad is None:
                    continue
                if not p.grad.isfinite().all():
                    raise NumericalError(
                        f"{name}: its gradient is not finite; lower the learning rate"
                    )
                self._shrink(p, group["lr"] * group["weight_decay"])
                if group["kind"] == MATRICES and p.dim() == 2:
                    self._move_matrix(p, p.grad, group)
                else:
                    p.sub_(group["lr"] * _direction(self.state[p], group, p.grad))
        return loss

    def _shrink(self, p: Tensor, by: float) -> None:
        p.mul_(1.0 - by)
        if by and (base := self._beside.get(cast(nn.Parameter, p))):
            p.sub_(base().to(p), alpha=by)

    def _move_matrix(self, p: Tensor, gradient: Tensor, group: Group) -> None:
        memory, rank, rate = self.state[p], group["rank"], group["lr"] * group["scale"]
        if min(p.shape) <= rank:
            p.sub_(rate * _direction(memory, group, gradient))
            return
        tall = p.shape[0] >= p.shape[1]
        g = gradient if tall else gradient.mT  # (large, small)
        due = "basis" not in memory or memory["step"] % group["gap"] == 0
        if due and g.any():  # a zero gradient has no directions: keep the old ones
            memory["basis"] = top_directions(g, rank)
        if "basis" in memory:
            basis = memory["basis"]
            n = _direction(memory, group, g @ basis)
            (p if tall else p.mT).addmm_(n, basis.mT, alpha=-rate)


@dataclass(frozen=True, kw_only=True)
class GaLoreConfig:
    """``GaLore`` for whole matrices (role D); AdamW for all else.

    Where it begins afresh in every round, the first gradient of a round chooses the subspace, and
    with gap >= local steps it is the only one that does.

    Attributes:
        lr: eta of round 0.
        rank: r.
        gap: steps between two choices of P.
        scale: the paper's alpha.
        weight_decay: lambda, decoupled.
        decays: what it shrinks: the update D, towards the base model; or the weight W + D, as in
            the paper, towards zero.
        betas: decay rates of the two means.
        eps: added to sqrt(v').

    Raises:
        ValueError: if rank or gap is not positive.
    """

    moves_pairs: ClassVar[Moves] = Moves.ANYTHING
    basis_free: ClassVar[bool] = False

    lr: float
    rank: int
    gap: int = 200
    scale: float = 1.0
    weight_decay: float = 0.0
    decays: Decays = "update"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"r: the rank must be at least 1, not {self.rank}")
        if self.gap < 1:
            raise ValueError(f"galore_gap: must be at least 1 step, not {self.gap}")

    def build(self, tensors: Mapping[Key, nn.Parameter], lr: float) -> GaLore:
        """Which tensors are projected follows from role and shape."""
        optimizer = GaLore(
            groups_of(tensors),
            lr=lr,
            rank=self.rank,
            gap=self.gap,
            scale=self.scale,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
        )
        optimizer.decays_base = self.decays == "weight"
        return optimizer


def _direction(memory: dict[str, Any], group: Group, r: Tensor) -> Tensor:
    """AdamW's N for a gradient ``r``, which has the same shape in every step."""
    b1, b2 = group["betas"]
    if "step" not in memory:
        memory |= {"step": 0, "mean": torch.zeros_like(r), "square": torch.zeros_like(r)}
    memory["step"] += 1
    mean: Tensor = memory["mean"].mul_(b1).add_(r, alpha=1.0 - b1)
    square: Tensor = memory["square"].mul_(b2).addcmul_(r, r, value=1.0 - b2)
    root = (square / (1.0 - b2 ** memory["step"])).sqrt_()
    n: Tensor = (mean / (1.0 - b1 ** memory["step"])).div_(root.add_(group["eps"]))
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
