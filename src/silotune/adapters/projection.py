"""Projection: a pair of which one factor is a frozen random projector, known to all by its seed.

Direct weight averaging in a common subspace: GaLore's step (Zhao et al. 2024, arXiv 2403.03507)
with a projector that needs no gradient. The projector stands on the site's smaller side,

    out >= in:  A (r, in) frozen, A A^T = I;    B (out, r) trains from 0
    out <  in:  B (out, r) frozen, B^T B = I;   A (r, in) trains from 0

so r max(out, in) numbers travel per site, their average over clients is exact, and under
example-level privacy this is ordinary DP-SGD in a smaller space: no projector is released, since
none is learnt from records. A random one sees on average r / min(out, in) of a gradient's squared
length, so a schedule folds the pair and draws another every so often.

Which alpha makes a step GaLore's with the paper's scale a (up to eps): Adam and its relatives are
blind to the scale s of a gradient and move W by s times GaLore's step, so s = a; plain SGD moves
it by s^2 times, so s = sqrt(a). With s = alpha/r, that is alpha = a r and alpha = sqrt(a) r.

Shapes: out, in, r rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from silotune.core import Context, PerExampleGradients, Role, Site, generator
from silotune.linalg import orthonormal_rows

from .base import NO_DROPOUT, Adapter, Layer, check_pair, pair_scale
from .linear import AdaptedLinear


@dataclass(frozen=True, kw_only=True)
class Projection(Adapter):
    """``y = W x + scale B A x``, one factor a seeded orthonormal projector that never trains.

    Raises:
        ValueError: if the rank is not positive or the dropout not in [0, 1).
    """

    seeded: ClassVar[bool] = True  # the projector comes out the same on every machine
    per_example_safe: ClassVar[bool] = True
    foldable: ClassVar[bool] = True
    multilinear: ClassVar[bool] = True
    fits_peft: ClassVar[bool] = True
    recomputable: ClassVar[bool] = True
    no_start_because: ClassVar[str] = (
        "a projector is orthonormal and drawn from the seed, which no trained pair is"
    )

    rank: int = 8
    alpha: float = 8.0
    dropout: float = 0.0
    rslora: bool = False

    def __post_init__(self) -> None:
        check_pair(self.rank, self.dropout)

    @property
    def crowdable(self) -> bool:
        """Without dropout: its coins are a client's own, and torch has one stream of them."""
        return not self.dropout

    @property
    def not_crowdable_because(self) -> str:
        """That it drops inputs."""
        return NO_DROPOUT

    @property
    def scale(self) -> float:
        """What the adapted layer multiplies B A by."""
        return pair_scale(self.alpha, self.rank, self.rslora)

    def layers(
        self, sites: Sequence[Site], sink: PerExampleGradients, context: Context
    ) -> Mapping[str, Layer]:
        """Pairs beside their bases."""
        return {s.name: AdaptedLinear(s, self.scale, self.rank, self.dropout, sink) for s in sites}

    def frozen(self, site: Site) -> frozenset[Role]:
        """The projector: A, or B where the site is wide."""
        return frozenset({Role.A if site.out_features >= site.in_features else Role.B})

    def initial_factors(self, site: Site, seed: int) -> Mapping[Role, Tensor]:
        """A (r, in) and B (out, r), float32 on the CPU, from (seed, site) alone.

        Raises:
            ValueError: if the rank exceeds the site's smaller side.
        """
        smaller = min(site.out_features, site.in_features)
        if self.rank > smaller:
            raise ValueError(
                f"r: {site.name} has {smaller} features on its smaller side, and r = "
                f"{self.rank} orthonormal directions do not fit into them"
            )
        rows = orthonormal_rows(self.rank, smaller, generator(seed, "P", site.name))
        if self.frozen(site) == {Role.A}:
            b = torch.zeros(site.out_features, self.rank, dtype=torch.float32)
            return {Role.A: rows, Role.B: b}
        a = torch.zeros(self.rank, site.in_features, dtype=torch.float32)
        return {Role.A: a, Role.B: rows.T.contiguous()}
