"""The one identity behind every aggregator of low-rank updates.

With client weights w, let E[.] be the weighted mean. The ideal global step is

    E[B A]  =  B' A'  +  error,

where B', A' are the factors broadcast next. Rules differ in how they choose them; what is left
over is their aggregation error, reported every round. For the plain mean it is the covariance of
B and A over clients: zero when only one factor moved (FFA-LoRA).
"""

from __future__ import annotations

from typing import Protocol

import torch

from silotune.algebra import LowRank, Matrix, norm
from silotune.core import Factors, GlobalState, Moments


class Aggregator(Protocol):
    """Server rule: means over clients in, next factors out. Pure."""

    @property
    def needs_product(self) -> bool:
        """Whether it reads E[BA]: central privacy then clips and noises products as well."""
        ...

    def combine(self, previous: GlobalState, mean: Moments) -> Factors:
        """The factors that replace those of ``previous`` under the same keys (float64 in)."""
        ...


def aggregation_error(mean: Moments, combined: Factors) -> float:
    """``||E[BA] - B'A'|| / ||E[BA]||``, Frobenius over all sites; 0 where one factor is common.

    Args:
        mean: E[BA] is known only for sites where clients sent both factors.
        combined: B' and A' of the same sites.
    """
    squares = torch.zeros(2, dtype=torch.float64)
    for site, ideal in mean.product.items():
        squares[0] += norm(_gap(ideal, combined.pair(site))) ** 2
        squares[1] += norm(ideal) ** 2
    error, size = squares.sqrt().tolist()
    return error / size if size else 0.0


def _gap(ideal: Matrix, pair: LowRank) -> Matrix:
    exact = LowRank(pair.left.double(), pair.right.double())
    return ideal - exact if isinstance(ideal, LowRank) else ideal - exact.dense()
