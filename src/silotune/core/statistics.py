"""Statistics: the additive shadow of an update, all that a server needs to know.

Whatever an aggregator may use is a weighted sum over clients. Streaming, secure aggregation and
central noise are then sound for every aggregator at once. Sums are kept in float64, so that the
mean of equal float32 tensors is bit for bit that tensor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from operator import add as plus

from silotune.linalg import LowRank, Matrix, add, inner

from .factors import Factors, Role
from .magnitudes import bounded


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Sums over clients of w, of w theta and, where asked for, of w B A per site and of w a."""

    weight: float
    first: Factors
    product: Mapping[str, Matrix] = field(default_factory=dict)
    reach: float = 0.0

    @staticmethod
    def of(
        update: Factors, weight: float, *, ranks_differ: bool = False, reach: float = 0.0
    ) -> Statistics:
        """One client's contribution; sites of which it holds both factors bring their product.

        Args:
            update: what it shares.
            weight: w.
            ranks_differ: clients have pairs of unequal shapes, so that only products can be summed.
            reach: a, how far its optimiser goes, where changes are averaged by the step.
        """
        exact = update.map(lambda t: t.double())
        alone = exact.only(set(Role) - {Role.A, Role.B}) if ranks_differ else exact
        return Statistics(
            weight=weight,
            first=alone.map(lambda t: t * weight),
            product={s: _weighted(exact.pair(s), weight) for s in exact.pair_sites()},
            reach=weight * reach,
        )

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(
            weight=self.weight + other.weight,
            first=self.first.zip(other.first, plus),
            product={s: add(m, other.product[s]) for s, m in self.product.items()},
            reach=self.reach + other.reach,
        )

    def mean(self) -> ClientMean:
        """Divide by the pooled weight."""
        return ClientMean(
            first=self.first.map(lambda t: t / self.weight),
            product={s: m * (1.0 / self.weight) for s, m in self.product.items()},
            reach=self.reach / self.weight,
        )

    def bounded(self) -> bool:
        """Whether all numbers are finite and small enough to be squared and multiplied."""
        matrices = self.product.values()
        parts = ([m.left, m.right] if isinstance(m, LowRank) else [m] for m in matrices)
        return all(map(bounded, chain(self.first.values(), *parts)))


@dataclass(frozen=True, kw_only=True)
class ClientMean:
    """Weighted means in float64: E[theta] per tensor, E[B A] per site (unscaled), E[a]."""

    first: Factors
    product: Mapping[str, Matrix]
    reach: float = 0.0


def size_of_products(update: Factors) -> float:
    """``(sum_site |B A|^2)^(1/2)``, Frobenius, in float64; not finite if that is too large."""
    pairs = [update.pair(site) for site in update.pair_sites()]
    return math.sqrt(max(0.0, sum(float(inner(pair, pair)) for pair in pairs)))


def _weighted(pair: LowRank, weight: float) -> LowRank:
    """sqrt(w) on either side keeps stacked products well conditioned."""
    root = weight**0.5
    return LowRank(pair.left * root, pair.right * root)
