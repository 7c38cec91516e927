"""FedASK: the mean of the products, seen through two sketches and cut to the rank of a pair."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from silotune.core import ClientMean, Factors, GlobalState, Key, Role, generator
from silotune.linalg import LowRank, Matrix, sketched_svd

from .base import Aggregator, Combined, filled, own_type


@dataclass(frozen=True, kw_only=True)
class Sketch(Aggregator):
    """B'A' from two sketches of the mean product M = E[BA] (FedASK, arXiv 2507.09990).

    With a common random Om (in, r + p): Y = M Om, Q from its QR, Z = M^T Q, and the SVD of
    Z^T = U S V^T gives B' = Q U_r S_r^(1/2), A' = S_r^(1/2) V_r^T. Om is drawn from the site's name
    alone and is the same in every round. Exact if M has rank r, as it has where clients train B
    alone; otherwise off by about the singular values beyond r. Y and Z are sums over clients, which
    is what the paper sends in two exchanges; the factors that are sent here in one determine both.
    Privacy noise: that of M. The basis is new in every round.

    Attributes:
        rank: of B'A' at most.
        oversampling: p, columns of the sketch beyond r.
        b_alone: whether clients train B and never A, so that M = E[B] A.

    Raises:
        ValueError: if a number is out of range, or the pairs hold less.
    """

    keeps_basis: ClassVar[bool] = False  # singular vectors turn from round to round
    leaves_base: ClassVar[bool] = True

    rank: int
    oversampling: int = 0
    b_alone: bool = True

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"r: must be at least 1, not {self.rank}")
        if self.oversampling < 0:
            raise ValueError(f"oversampling: must not be negative, not {self.oversampling}")

    @property
    def needs_product(self) -> bool:
        """Where A is trained as well, E[BA] is not E[B] E[A]."""
        return not self.b_alone

    @property
    def needs_b_alone(self) -> bool:
        """Where it takes E[B] A for the mean product."""
        return self.b_alone

    def combine(self, previous: GlobalState, mean: ClientMean) -> Combined:
        """The pair of every site; what is shared besides is averaged."""
        factors: dict[Key, Tensor] = dict(mean.first)
        for site, product in self._products(previous, mean):
            b, a = Key(site, Role.B), Key(site, Role.A)
            factors[b], factors[a] = self._pair(product, previous.factors[a], site)
        return Combined(factors=own_type(Factors(factors), previous))

    def _products(self, previous: GlobalState, mean: ClientMean) -> Iterator[tuple[str, Matrix]]:
        if not self.b_alone:
            yield from mean.product.items()
            return
        if mean.product or mean.first.only({Role.A}):
            raise ValueError("FedASK with a frozen A combines pairs of which only B moved")
        for key in mean.first.only({Role.B}):
            a = previous.factors[Key(key.site, Role.A)].double()
            yield key.site, LowRank(mean.first[key], a)

    def _pair(self, product: Matrix, before: Tensor, site: str) -> tuple[Tensor, Tensor]:
        """B' (out, r) and A' (r, in), where ``before`` is A (r, in)."""
        if self.rank > len(before):
            raise ValueError(f"r: {self.rank} is more than the {len(before)} of the pairs")
        spectrum = sketched_svd(
            product,
            self.rank,
            generator("fedask", site),
            oversampling=self.oversampling,
            passes=0,
        )
        return filled(spectrum.balanced(), before)
