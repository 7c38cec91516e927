"""LoRA-FAIR: keep the mean's A and correct its B towards the exact mean (arXiv 2411.14961).

E[BA] is read only through M = E[BA] A'^T (out, r) and its norm, so that no (out, in) matrix is
made. What E[BA] has outside the row space of A' is lost: no choice of B' is exact. Privacy noise:
quadratic, through M; the penalty keeps a noisy A' from blowing it up. Local optimisers begin
afresh, in the basis of the means.

Shapes: out, in = features of a site, r = rank, n = any number of choices.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from silotune.core import ClientMean, Factors, GlobalState, Key, Role
from silotune.linalg import LowRank, Matrix, eigh, norm, vector_norm

from .base import Aggregator, Combined, own_type

FARTHEST = 30.0
"""Of |log alpha| in units of |B| / |M|: beyond that B' is E[B], or the projection, to rounding."""

LOOKS = 10
"""Ever closer looks at log alpha, by a factor of four each."""

HALVINGS = 45
"""Of where log (gamma / alpha) may be, for every alpha."""

ROUNDING = 1e-15
"""Of the objective: less is no gain."""

LEAST_COSINE = 0.1
"""Between B' and E[B]: a correction that turns B further would rather have no B at all."""


@dataclass(frozen=True, kw_only=True)
class FairCosine(Aggregator):
    """B' = E[B] + D, A' = E[A], R = 0, with D the minimiser of the paper's objective.

        1 - cos(E[BA], (E[B] + D) A') + strength |D|

    The cosine is that of the whole matrices, the norm Frobenius's. The objective is not scale-free:
    the cosine does not see the size of B', and ``strength`` is in units of 1 / |B|, so that pairs
    with a large B are held at their mean and those with a small one are turned to the projection of
    E[BA] on the rows of A'. The cosine leaves the length of B' open; the penalty decides it, and
    never makes B' longer than E[B].

    The paper takes gradient steps, whose end depends on rate and start. Here the minimiser is
    looked for where it must be: at B' = (E[B] + alpha M)(1 + gamma G)^-1, with G = A' A'^T and
    gamma = alpha <M, B'> / |B'A'|^2. In the eigenbasis of G that is a search over alpha alone, of
    O(r) each, whatever the size of the site. It never ends above its start, D = 0.

    Attributes:
        strength: the paper's lambda.
        squared: the penalty is ``strength |D|^2``, as public implementations have it.

    Raises:
        ValueError: if the strength is negative.
    """

    needs_product: ClassVar[bool] = True  # B' turns towards E[BA]
    mixes_ranks: ClassVar[bool] = False  # it starts from the means
    keeps_basis: ClassVar[bool] = True  # A' is the mean
    leaves_base: ClassVar[bool] = True

    strength: float = 0.01
    squared: bool = False

    def __post_init__(self) -> None:
        if not self.strength >= 0:
            raise ValueError(f"fair_lambda: must not be negative, not {self.strength}")

    def combine(self, previous: GlobalState, mean: ClientMean) -> Combined:
        """The means, with B corrected at every site that has a product."""
        return corrected(previous, mean, self._corrected)

    def _corrected(self, ideal: Matrix, pair: LowRank) -> Tensor:
        b, a = pair.left, pair.right
        if not norm(ideal) or not norm(pair):
            return b  # no angle to speak of
        a = a / vector_norm(a)
        m = ideal @ a.mT
        size, length = vector_norm(b), vector_norm(m)
        if not length:
            return b  # nothing to turn to
        values, vectors = eigh(a @ a.mT)
        seen = values > pair.rank * torch.finfo(values.dtype).eps * values[-1]
        b_own, m_own = b @ vectors / size, torch.where(seen, m @ vectors / length, 0.0)
        columns = _Columns(
            gram=torch.where(seen, values / values[-1], 0.0),
            of_b=b_own.square().sum(dim=0),
            of_both=(b_own * m_own).sum(dim=0),
            of_m=m_own.square().sum(dim=0),
            unit=length / norm(ideal) / values[-1].sqrt(),
        )
        strength = self.strength * size * (size if self.squared else 1.0)
        best = _best(columns, strength, self.squared)
        if best is None:
            return b
        turned: Tensor = (b_own * best[0] + m_own * best[1]) @ vectors.mT
        return turned * size


class _Columns(NamedTuple):
    """All that the objective knows of a site, in the eigenbasis of G; B and M have norm 1."""

    gram: Tensor  # (r,) eigenvalues of G, the largest 1
    of_b: Tensor  # (r,) squared norms of the columns of E[B]
    of_both: Tensor  # (r,) products with the columns of M
    of_m: Tensor  # (r,)
    unit: Tensor  # of the cosine

    def parts(self, log_alpha: Tensor, ratio: Tensor) -> tuple[Tensor, Tensor]:
        """What (n, r) of B and of M is in B'.

        Args:
            log_alpha: (n, 1).
            ratio: gamma / alpha, (n, 1).
        """
        of_b, of_m = torch.sigmoid(-log_alpha), torch.sigmoid(log_alpha)
        below = of_b + of_m * ratio * self.gram
        return of_b / below, of_m / below

    def along_b(self, b: Tensor, m: Tensor) -> Tensor:
        """<E[B], B'> (n,)."""
        return b @ self.of_b + m @ self.of_both

    def along_m(self, b: Tensor, m: Tensor) -> Tensor:
        """<M, B'> (n,)."""
        return b @ self.of_both + m @ self.of_m

    def squares(self, b: Tensor, m: Tensor) -> Tensor:
        """Squared norms (n, r) of the columns of B'."""
        return b.square() * self.of_b + 2.0 * b * m * self.of_both + m.square() * self.of_m


def _best(columns: _Columns, strength: Tensor, squared: bool) -> tuple[Tensor, Tensor] | None:
    """The parts (r,) of B and M in the B' of the least objective; None if that is E[B]."""
    one = torch.ones_like(columns.gram).unsqueeze(0)
    lowest = float(_objective(columns, one, 0.0 * one, strength, squared)) - ROUNDING
    best, at = None, 0.0
    for look in range(LOOKS):
        width = FARTHEST * 4.0**-look
        logs = at + torch.linspace(-width, width, 33, dtype=one.dtype).unsqueeze(1)
        b, m = _met(columns, logs)
        values = _objective(columns, b, m, strength, squared)
        i = int(values.argmin())
        if float(values[i]) < lowest:
            best, lowest = (b[i], m[i]), float(values[i])
        at = float(logs[i])
    return best


def _met(columns: _Columns, log_alpha: Tensor) -> tuple[Tensor, Tensor]:
    """The parts (n, r) of B and M for which gamma is what B' makes it, at its best length."""
    middle, step = torch.zeros_like(log_alpha), FARTHEST
    for _ in range(HALVINGS):
        step /= 2.0
        b, m = columns.parts(log_alpha, middle.exp())
        more = columns.along_m(b, m) > middle.exp().squeeze(1) * (
            columns.squares(b, m) @ columns.gram
        )
        middle = middle + torch.where(more, step, -step).unsqueeze(1)
    b, m = columns.parts(log_alpha, middle.exp())
    length = (columns.along_b(b, m) / columns.squares(b, m).sum(dim=1)).unsqueeze(1)
    return b * length, m * length


def _objective(columns: _Columns, b: Tensor, m: Tensor, strength: Tensor, squared: bool) -> Tensor:
    """The objective (n,) of each B'; infinite where that is no choice."""
    cosine = columns.unit * columns.along_m(b, m) / (columns.squares(b, m) @ columns.gram).sqrt()
    moved = columns.squares(b - 1.0, m).sum(dim=1).clamp(min=0.0)
    penalty = strength * (moved if squared else moved.sqrt())
    values = 1.0 - cosine + torch.where(moved > 0, penalty, 0.0)
    kept = columns.along_b(b, m)  # at the best length, the squared cosine of B' and E[B]
    allowed = (kept > LEAST_COSINE**2) & values.isfinite()
    return values.where(allowed, torch.inf)


def corrected(
    previous: GlobalState, mean: ClientMean, correct: Callable[[Matrix, LowRank], Tensor]
) -> Combined:
    """The means, with every B replaced by ``correct(E[BA], the pair of means as broadcast)``."""
    factors = own_type(mean.first, previous)
    better = {
        Key(site, Role.B): correct(ideal, factors.pair(site).to(torch.float64))
        for site, ideal in mean.product.items()
    }
    return Combined(factors=factors.updated(own_type(Factors(better), previous)))
