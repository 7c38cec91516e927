"""LoRA-FAIR with the squared error in the place of its cosine, which has a solution in closed form.

Ours, not the paper's: the objective of ``lora_fair`` is. Privacy noise: quadratic, through M; the
ridge keeps a noisy A' from blowing it up.

Shapes: out, in = features of a site, r = rank.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from silotune.core import ClientMean, GlobalState
from silotune.linalg import LowRank, Matrix, pinv

from .base import Aggregator, Combined
from .lora_fair import corrected


@dataclass(frozen=True, kw_only=True)
class FairRidge(Aggregator):
    """B' = E[B] + D, A' = E[A], R = 0, with D in closed form.

    D minimises ``|E[BA] - (E[B] + D) A'|^2 + ridge tr(G) / r |D|^2`` (Frobenius, G = A' A'^T), so
    D = (M - E[B] G) (G + ridge tr(G) / r)^-1 with M = E[BA] A'^T. Never worse than the mean. The
    ridge is relative to G, so that it means the same whatever the size of A' and B: a hundredth
    keeps 99 % of the whole correction, so that B'A' is nearly the projection of E[BA] on the rows
    of A', which it is with a ridge of 0.

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
        if not self.ridge >= 0:
            raise ValueError(f"fair_ridge: must not be negative, not {self.ridge}")

    def combine(self, previous: GlobalState, mean: ClientMean) -> Combined:
        """The means, with B corrected at every site that has a product."""
        return corrected(previous, mean, self._corrected)

    def _corrected(self, ideal: Matrix, pair: LowRank) -> Tensor:
        b, a = pair.left, pair.right
        gram = a @ a.mT
        ridge = self.ridge * gram.diagonal().mean() * torch.eye(pair.rank, dtype=gram.dtype)
        gap = ideal @ a.mT - b @ gram
        correction = gap @ pinv(gram + ridge, hermitian=True)
        return b + correction
