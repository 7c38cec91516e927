"""LoRA-FAIR: keep the mean's A and correct its B towards the exact mean (arXiv 2411.14961).

Both forms read E[BA] only through M = E[BA] A'^T (out, r) and its norm, so that no (out, in) matrix
is made. What E[BA] has outside the row space of A' is lost: no choice of B' is exact. Privacy
noise: quadratic, through M; the ridge keeps a noisy A' from blowing it up. Local optimisers begin
afresh, in the basis of the means.

Shapes: out, in = features of a site, r = rank.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from silotune.core import ClientMean, Factors, GlobalState, Key, Role
from silotune.linalg import LowRank, Matrix, norm, pinv, qr

from .base import Aggregator, Combined, own_type


@dataclass(frozen=True, kw_only=True)
class Fair(Aggregator):
    """B' = E[B] + D, A' = E[A], R = 0, with D in closed form.

    D minimises ``|E[BA] - (E[B] + D) A'|^2 + ridge tr(G) / r |D|^2`` (Frobenius, G = A' A'^T), so
    D = (M - E[B] G) (G + ridge tr(G) / r)^-1. Never worse than the mean. Ours: the squared error
    takes the place of the paper's cosine, which fixes B' only up to a factor, and the ridge is in
    units of G, so that it means the same whatever the size of A'. With a ridge of 0, B'A' is the
    projection of E[BA] on the rows of A', which also has the greatest cosine.

    Attributes:
        ridge: how strongly B' is held at E[B].

    Raises:
        ValueError: if the ridge is negative.
    """

    needs_product: ClassVar[bool] = True  # B' moves towards E[BA]
    mixes_ranks: ClassVar[bool] = False  # it starts from the means
    keeps_basis: ClassVar[bool] = True  # A' is the mean
    leaves_base: ClassVar[bool] = True

    ridge: float = 0.01

    def __post_init__(self) -> None:
        _check_ridge(self.ridge)

    def combine(self, previous: GlobalState, mean: ClientMean) -> Combined:
        """The means, with B corrected at every site that has a product."""
        return _corrected(previous, mean, self._corrected)

    def _corrected(self, ideal: Matrix, pair: LowRank) -> Tensor:
        b, a = pair.left, pair.right
        gram = a @ a.mT
        ridge = self.ridge * gram.diagonal().mean() * torch.eye(pair.rank, dtype=gram.dtype)
        gap = ideal @ a.mT - b @ gram
        correction = gap @ pinv(gram + ridge, hermitian=True)
        return b + correction


@dataclass(frozen=True, kw_only=True)
class FairCosine(Aggregator):
    """B' = E[B] + D, A' = E[A], R = 0, with D by gradient steps on the paper's objective.

        min over D of  1 - cos(E[BA], (E[B] + D) A') + ridge |D|^2

    The paper leaves open: the norm (squared here), the cosine (of the whole matrix), the start
    (D = 0; from a random start the ridge decays too slowly to forget it). The best step counts, so
    the objective never ends above its start. It is not scale-free: the cosine does not see the
    size of B', and both ridge and learning rate are in units of B.

    All steps stay in the span of the columns of E[B] and M, so they are taken on (2 r, r)
    coordinates, at O(r^3) each whatever the size of the site.

    Attributes:
        ridge: the paper's lambda.
        steps: of gradient descent.
        learning_rate: of these.

    Raises:
        ValueError: if a number is out of range.
    """

    needs_product: ClassVar[bool] = True  # B' turns towards E[BA]
    mixes_ranks: ClassVar[bool] = False  # it starts from the means
    keeps_basis: ClassVar[bool] = True  # A' is the mean
    leaves_base: ClassVar[bool] = True

    ridge: float = 0.01
    steps: int = 1000
    learning_rate: float = 0.01

    def __post_init__(self) -> None:
        _check_ridge(self.ridge)
        if self.steps < 1:
            raise ValueError(f"FairCosine: steps must be at least 1, not {self.steps}")
        if self.learning_rate <= 0:
            raise ValueError(
                f"FairCosine: learning_rate must be positive, not {self.learning_rate}"
            )

    def combine(self, previous: GlobalState, mean: ClientMean) -> Combined:
        """The means, with B corrected at every site that has a product."""
        return _corrected(previous, mean, self._corrected)

    def _corrected(self, ideal: Matrix, pair: LowRank) -> Tensor:
        b, a = pair.left, pair.right
        size = norm(ideal)
        if not size or not norm(pair):
            return b  # no angle to speak of
        basis, r = qr(torch.cat([b, ideal @ a.mT], dim=1))
        start, towards = r[:, : pair.rank], r[:, pair.rank :]
        corrected: Tensor = basis @ self._descended(start, towards / size, a @ a.mT)
        return corrected

    def _descended(self, start: Tensor, towards: Tensor, gram: Tensor) -> Tensor:
        """The best B' of all steps; every argument in the basis of [E[B], M] (2 r, r).

        Args:
            start: E[B].
            towards: M / |E[BA]|.
            gram: G, (r, r).
        """
        b, best, lowest = start, start, math.inf
        for step in range(self.steps + 1):
            moved, turned = b - start, b @ gram
            length = (b * turned).sum().sqrt()  # |B'A'|
            cosine = (b * towards).sum() / length
            value = float(1.0 - cosine + self.ridge * moved.square().sum())
            if value < lowest:
                best, lowest = b, value
            if step < self.steps:
                slope = (turned * (cosine / length) - towards) / length
                b = b - self.learning_rate * (slope + 2.0 * self.ridge * moved)
        return best


def _corrected(
    previous: GlobalState, mean: ClientMean, correct: Callable[[Matrix, LowRank], Tensor]
) -> Combined:
    """The means, with every B replaced by ``correct(E[BA], the pair of means as broadcast)``."""
    factors = own_type(mean.first, previous)
    better = {
        Key(site, Role.B): correct(ideal, factors.pair(site).to(torch.float64))
        for site, ideal in mean.product.items()
    }
    return Combined(factors=factors.updated(own_type(Factors(better), previous)))


def _check_ridge(ridge: float) -> None:
    if ridge < 0:
        raise ValueError(f"fair_lambda: must not be negative, not {ridge}")
