"""FLoRA: the whole of every product is folded into the frozen base, and a fresh pair begins.

The quadratic noise of local DP stays as it is: K times the energy that it has in a product of
means, since E[BA] does not average B's noise before it meets A's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from silotune.core import ClientMean, GlobalState, Key, Role

from .base import Aggregator, Combined, own_type


@dataclass(frozen=True, kw_only=True)
class Fold(Aggregator):
    """B' = 0, R = weight E[BA] (FLoRA, arXiv 2409.05976). Exact, for clients of any ranks.

    A' stays as it is until the schedule begins a fresh pair. Privacy noise: quadratic, whole. Local
    optimisers begin afresh with the pair.

    Attributes:
        weight: of what is folded; below 1 it is XGBLoRA's booster weight (arXiv 2410.19694), and
            the error that is told is what it leaves out.

    Raises:
        ValueError: if the weight is not positive.
    """

    needs_product: ClassVar[bool] = True  # it folds the whole of E[BA]
    mixes_ranks: ClassVar[bool] = True  # it reads no factor
    keeps_basis: ClassVar[bool] = False  # a fresh pair has another

    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.weight > 0.0:
            raise ValueError(f"booster_weight: must be positive, not {self.weight}")

    def combine(self, previous: GlobalState, mean: ClientMean) -> Combined:
        """All of every product into the base; what is shared besides is averaged."""
        pairs = {Key(site, role) for site in mean.product for role in (Role.A, Role.B)}
        zeros = {
            Key(site, Role.B): torch.zeros_like(previous.factors[Key(site, Role.B)])
            for site in mean.product
        }
        others = own_type(mean.first.without(pairs), previous)
        whole = self.weight == 1.0
        folded = {s: m if whole else m * self.weight for s, m in mean.product.items()}
        return Combined(factors=others.updated(zeros), residual=folded)
