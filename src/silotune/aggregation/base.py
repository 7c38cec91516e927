"""The one identity behind every aggregator of low-rank updates.

With client weights w, let E[.] be the weighted mean. The ideal global step is

    E[B A]  =  B' A'  +  R  +  error,

where B', A' are the factors broadcast next and R is folded into the frozen base. Rules differ in
how they choose them; what is left over is their aggregation error, reported every round. For the
plain mean it is the covariance of B and A over clients: zero when only one factor moved (FFA-LoRA).
All of it is unscaled: alpha/r belongs to the adapted layer.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from silotune.core import ClientMean, Factors, GlobalState
from silotune.linalg import LowRank, Matrix, norm, subtract


@dataclass(frozen=True, kw_only=True)
class Combined:
    """What a rule decides.

    Attributes:
        factors: B', A' and whatever else was shared; they replace those under the same keys.
        residual: R by site, added to what has been folded before; sites without one are left out.
        memory: the server's own numbers for the next round, by name; they replace those of the
            same names.
    """

    factors: Factors
    residual: Mapping[str, Matrix] = field(default_factory=dict)
    memory: Mapping[str, Tensor] = field(default_factory=dict)


class Aggregator(Protocol):
    """Server rule: means over clients in, next state's parts out. Pure.

    ``combine`` makes one. Inherit from this class for the rest, which claims nothing, so that a
    rule is refused wherever a claim would be needed. A rule sees means, and under privacy these
    are noised before it: whatever it makes of them costs nothing.
    """

    @abstractmethod
    def combine(self, previous: GlobalState, mean: ClientMean) -> Combined:
        """B', A' and R. Means come in float64; factors leave in the type of ``previous``."""

    @property
    def needs_product(self) -> bool:
        """Whether it reads E[BA]: central privacy then clips and noises products as well.

        One that does not say so finds no products under central privacy.
        """
        return False

    @property
    def mixes_ranks(self) -> bool:
        """Whether clients' ranks may differ, since it ``pads`` or reads of a pair E[BA] alone."""
        return False

    @property
    def pads(self) -> bool:
        """Whether pairs of a lower rank are filled up with zeros before factors are averaged."""
        return False

    @property
    def weighs_by_norm(self) -> bool:
        """Whether a client's weight is the norm of its products, in place of a public one.

        Post-processing of what clients have released; refused where the server hides them.
        """
        return False

    @property
    def scales_by_rank(self) -> bool:
        """Whether a client of a rank of its own trains at the scale of that rank, alpha / r_i."""
        return False

    @property
    def keeps_basis(self) -> bool:
        """Whether B' and A' are written in the basis of B and A: a server's moments stay valid."""
        return False

    def turns(self, round: int) -> bool:
        """Whether the basis after ``round`` (0-based) is another than before it."""
        return not self.keeps_basis

    @property
    def leaves_base(self) -> bool:
        """Whether it never adds anything to the frozen base: clients then take no fold from it."""
        return False

    @property
    def needs_b_alone(self) -> bool:
        """Whether it is right only where clients train B and never A."""
        return False

    @property
    def replaceable(self) -> bool:
        """Whether it is the plain mean, in whose place another rule may stand."""
        return False

    @property
    def rule(self) -> Aggregator:
        """The rule that decides, where something stands around it."""
        return self


def aggregation_error(mean: ClientMean, before: Factors, combined: Combined) -> float:
    """``||E[BA] - B'A' - R|| / ||E[BA]||``, Frobenius over all sites; 0 where one factor is common.

    Args:
        mean: E[BA] is known only for sites where clients sent both factors.
        before: factors that the rule left alone.
        combined: what it decided.
    """
    factors = before.updated(combined.factors)
    squares = torch.zeros(2, dtype=torch.float64)
    for site, ideal in mean.product.items():
        gap = subtract(ideal, factors.pair(site).to(torch.float64))
        if site in combined.residual:
            gap = subtract(gap, combined.residual[site])
        squares[0] += norm(gap) ** 2
        squares[1] += norm(ideal) ** 2
    error, size = squares.sqrt().tolist()
    return error / size if size else 0.0


def own_type(means: Factors, previous: GlobalState) -> Factors:
    """Means (float64) in the type of the factors they replace."""
    return Factors({k: t.to(previous.factors[k].dtype) for k, t in means.items()})


def filled(best: LowRank, before: Tensor) -> tuple[Tensor, Tensor]:
    """B' (out, r) and A' (r, in) of the same product, where ``before`` is A (r, in).

    Components that the product does not need begin afresh, B' = 0 and A' as it was, since a pair of
    zeros would never move again.
    """
    unused = torch.zeros(len(best.left), len(before) - best.rank, dtype=torch.float64)
    return torch.cat([best.left, unused], 1), torch.cat([best.right, before[best.rank :]])


def resolution(ideal: Matrix, dtype: torch.dtype) -> float:
    """The part of ``ideal`` that factors of that type cannot tell from nothing."""
    return torch.finfo(dtype).eps * float(norm(ideal))
