"""Dense: a whole matrix D (out, in) beside the frozen base, ``y = base(x) + D x``.

The full-rank update of "Why Gradient Subspace?" (arXiv 2410.23111), whose clients train it with
GaLore and average it as it is: exact, since y is linear in D, at out x in numbers a site. Scale 1.

Without privacy only the gradient's sum over the batch is made, g^T x (out, in). Rows are n times as
many numbers; so a method under example-level privacy should train something smaller.

Shapes: n examples, T positions (tokens, patches; 1 after pooling), out, in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from silotune.core import Context, Key, PerExampleGradients, Role, Site

from .base import Adapter, Layer
from .kernels import dense_map
from .site_layer import SiteLayer, zeros


@dataclass(frozen=True)
class Dense(Adapter):
    """``y = (W + D) x`` with D = 0 at birth. It has no inner dimension and no scale to choose."""

    seeded: ClassVar[bool] = True  # zeros are the same on every machine
    per_example_safe: ClassVar[bool] = True
    multilinear: ClassVar[bool] = True
    fits_peft: ClassVar[bool] = True
    recomputable: ClassVar[bool] = True
    starts_from_pairs: ClassVar[bool] = True  # D = s B A

    def layers(
        self, sites: Sequence[Site], sink: PerExampleGradients, context: Context
    ) -> Mapping[str, Layer]:
        """D beside every base."""
        return {s.name: DenseLinear(s, sink) for s in sites}

    def frozen(self, site: Site) -> frozenset[Role]:
        """None: the schedule decides."""
        return frozenset()

    def initial_factors(self, site: Site, seed: int) -> Mapping[Role, Tensor]:
        """D = 0 (out, in), float32 on the CPU."""
        return {Role.D: torch.zeros(site.out_features, site.in_features, dtype=torch.float32)}


class DenseLinear(SiteLayer):
    """One site with its D. Replaces the base module inside the model.

    Where the base is a plain matrix of D's own type, the layer runs on W + D; a half-precision or
    quantised base keeps D beside it in float32.
    """

    no_fold: ClassVar[str] = "a whole matrix trains here, so none is folded"

    def __init__(self, site: Site, sink: PerExampleGradients) -> None:
        super().__init__(site)
        self.D = zeros(site, site.out_features, site.in_features)
        self._sink = sink
        self._key = Key(site.name, Role.D)

    def tensors(self) -> dict[Key, nn.Parameter]:
        """D by key."""
        return {self._key: self.D}

    def delta(self) -> Tensor:
        """D."""
        return self.D.detach()

    def forward(self, x: Tensor) -> Tensor:
        """(n, ..., in) to (n, ..., out)."""
        if self.is_plain(self.D):
            weight = self.weight.T if self.transposed else self.weight
            return self._map(x, weight, self.bias)
        y: Tensor = self.base(x)
        return y + self._map(x.to(self.D.dtype), None, None).to(y.dtype)

    def _map(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        """``x (W + D)^T + b``, by the kernel while gradients are collected."""
        if self._sink.is_open and self.D.requires_grad:
            return dense_map(x, (weight, bias), self.D, self._sink, self._key, self.records)
        return F.linear(x, self.D if weight is None else weight + self.D, bias)
