"""LoRA-FAIR: keep the mean's A and correct its B towards the exact mean (arXiv 2411.14961).

E[BA] is read only through M = E[BA] A'^T (out, r) and its norm, so that no (out, in) matrix is
made. What E[BA] has outside the row space of A' is lost: no choice of B' is exact. Privacy noise:
quadratic, through M; the penalty keeps a noisy A' from blowing it up. Local optimisers begin
afresh, in the basis of the means.

Shapes: out, in = features of a site, r = rank.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from silotune.core import ClientMean, Factors, GlobalState, Key, Role
from silotune.linalg import LowRank, Matrix, eigh, norm, vector_norm

from .base import Aggregator, Combined, own_type
from .fair_minimum import FairProblem


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
    computed, as the root of a derivative (``fair_minimum``): a few dozen evaluations of O(r) each,
    whatever the size of the site. It never ends above its start, D = 0.

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
        whole = norm(ideal)
        if not whole or not norm(pair):
            return b  # no angle to speak of
        a = a / vector_norm(a)
        m = ideal @ a.mT
        size, length = vector_norm(b), vector_norm(m)
        if not length:
            return b  # nothing to turn to
        values, vectors = eigh(a @ a.mT)
        seen = values > pair.rank * torch.finfo(values.dtype).eps * values[-1]
        b, m = b @ vectors / size, torch.where(seen, m @ vectors / length, 0.0)
        columns = torch.linalg.vector_norm(b, dim=0)
        directions = b / torch.where(columns > 0, columns, 1.0)
        along = (directions * m).sum(dim=0)
        across = torch.linalg.vector_norm(m - directions * along, dim=0)
        best = FairProblem(
            gram=torch.where(seen, values / values[-1], 0.0).numpy(),
            b=columns.numpy(),
            m_along=along.numpy(),
            m_across=across.numpy(),
            unit=float(length / whole / values[-1].sqrt()),
            strength=self.strength * float(size.square() if self.squared else size),
            power=2 if self.squared else 1,
        ).minimum()
        if best is None:
            return pair.left
        turned: Tensor = (
            b * torch.from_numpy(best.of_b) + m * torch.from_numpy(best.of_m)
        ) @ vectors.mT
        return turned * size


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
