"""DoRA (Liu et al. 2024, arXiv 2402.09353): a weight's rows have a direction and a length.

    y = W' x + b,    W' = m / |W + scale B A| (W + scale B A),    m = |W| + M

where |.| is the L2 norm of every row, of what gives one output, as in PEFT. The pair turns the
rows, and m (out,) is how long they are. B = 0 and M = 0 at the start, which is the base to the bit.
The paper trains m itself; its steps are those of M, but that weight decay shrinks what was learned,
and that every machine takes |W| from its own copy of the public weights. The norm follows the pair
and passes no gradient, as in section 4.3 of the paper and in PEFT: with v = (W + scale B A) x, what
comes back at B A is ``m / |.|`` times the gradient of y, and

    dL/dM = sum over positions of  dL/dy v / |.|

so that a record's gradients are its own.

Shapes: out, in, r rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from silotune.core import Context, Key, PerExampleGradients, Role, Site

from .base import Adapter, Layer
from .kernels import merged_lora, rows_linear, rows_scaled
from .lora import LoRA, refuse_in_weight
from .site_layer import SiteLayer, norms_of_rows, row_lengths, zeros


@dataclass(frozen=True, kw_only=True)
class DoRA(Adapter):
    """LoRA with a trained length m for every row of the weight.

    Attributes:
        pair: what turns the rows.

    Raises:
        ValueError: if the pair begins as a part of the weight, which the norms are taken of.
    """

    per_example_safe: ClassVar[bool] = True  # norms are of weights alone
    fits_peft: ClassVar[bool] = True
    recomputable: ClassVar[bool] = True
    no_start_because: ClassVar[str] = (
        "the lengths of rows would begin as the base weight's, which a trained pair has changed"
    )

    pair: LoRA = field(default_factory=LoRA)

    def __post_init__(self) -> None:
        refuse_in_weight(self.pair.init)

    @property
    def pairs_like(self) -> LoRA:
        """What turns the rows."""
        return self.pair

    def layers(
        self, sites: Sequence[Site], sink: PerExampleGradients, context: Context
    ) -> Mapping[str, Layer]:
        """Pairs and lengths beside their bases."""
        return {s.name: DoRALinear(s, self.pair, sink) for s in sites}

    def frozen(self, site: Site) -> frozenset[Role]:
        """None: the schedule decides."""
        return frozenset()

    def check_sites(self, sites: Sequence[Site]) -> None:
        """That every row has a direction.

        Raises:
            ValueError: if one is zero.
        """
        for site in sites:
            if not row_lengths(site).all():
                raise ValueError(
                    f"target_modules: {site.name} has a row of zeros, which has no direction, and "
                    "DoRA divides by its length; leave it out, or use method: fedit"
                )

    def initial_factors(self, site: Site, seed: int) -> Mapping[Role, Tensor]:
        """A (r, in) as LoRA has it, B = 0 (out, r) and M = 0 (out,), float32 on the CPU."""
        m = torch.zeros(site.out_features, dtype=torch.float32)
        return {**self.pair.initial_factors(site, seed), Role.M: m}


class DoRALinear(SiteLayer):
    """One site with its pair and lengths. Replaces the base module inside the model.

    Where the base is a plain matrix of the factors' own type, the pair runs on the merged weight; a
    half-precision or quantised base, or dropout, keeps it beside in float32. A dropped input is
    dropped from all that training changes, as PEFT has it: ``W x + W' x_d - W x_d``.

    Attributes:
        lengths: |W| (out,).
    """

    lengths: Tensor

    no_fold: ClassVar[str] = "its rows are turned and stretched, and no pair is folded"

    def __init__(self, site: Site, pair: LoRA, sink: PerExampleGradients) -> None:
        super().__init__(site)
        self.scale = pair.scale
        self.dropout = pair.dropout
        self.A = zeros(site, pair.rank, site.in_features)
        self.B = zeros(site, site.out_features, pair.rank)
        self.M = zeros(site, site.out_features)
        self.register_buffer("lengths", row_lengths(site), persistent=False)
        self._sink = sink
        self._keys = (Key(site.name, Role.A), Key(site.name, Role.B))
        self._key = Key(site.name, Role.M)

    def tensors(self) -> dict[Key, nn.Parameter]:
        """The pair and the lengths by key."""
        return {**dict(zip(self._keys, (self.A, self.B), strict=True)), self._key: self.M}

    @torch.no_grad()
    def delta(self) -> Tensor:
        """W' - W."""
        turned = self._turned()
        return self._stretch(turned).unsqueeze(1) * turned - self._plain()

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        dropout = self.dropout if self.training and self._sink.is_open else 0.0
        if dropout or not self.is_plain(self.A):
            return self._beside(x, dropout)
        if not self._sink.is_open:
            turned = self._turned()
            return F.linear(x, self._stretch(turned).unsqueeze(1) * turned, self.bias)
        base, factors = (self._plain(), None), (self.A, self.B)
        v = merged_lora(x, base, factors, self.scale, self._sink, self._keys, self.records)
        y = self._scaled(v)
        return y if self.bias is None else y + self.bias

    def _beside(self, x: Tensor, dropout: float) -> Tensor:
        """The pair in its own precision, and W' x - W x added to the base's output."""
        y: Tensor = self.base(x)
        seen, plain = x, y
        if dropout:
            seen = F.dropout(x, dropout)
            plain = self.base(seen)
        plain = (plain if self.bias is None else plain - self.bias).to(self.A.dtype)
        z = self._map(seen.to(self.A.dtype), self.A, 1.0, self._keys[0])
        v = plain + self._map(z, self.B, self.scale, self._keys[1])
        return y + (self._scaled(v) - plain).to(y.dtype)

    def _map(self, x: Tensor, weight: Tensor, scale: float, key: Key) -> Tensor:
        if self._sink.is_open and weight.requires_grad:
            return rows_linear(x, weight, None, scale, self._sink, [key], self.records)
        return F.linear(x, weight) * scale

    def _scaled(self, v: Tensor) -> Tensor:
        """V (..., out), every feature times how much longer its row is than that of W + s B A."""
        norms = self._norms()
        if self._sink.is_open and self.M.requires_grad:
            return rows_scaled(v, self.M, self.lengths, norms, self._sink, self._key, self.records)
        return v * ((self.lengths + self.M) / norms)

    def _stretch(self, turned: Tensor) -> Tensor:
        """What turned rows are multiplied by, m / |.| (out,)."""
        return (self.lengths + self.M) / norms_of_rows(turned.detach())

    @torch.no_grad()
    def _norms(self) -> Tensor:
        """Of the rows of W + s B A (out,)."""
        return norms_of_rows(self._turned())

    def _turned(self) -> Tensor:
        """W + s B A (out, in)."""
        return torch.addmm(self._plain(), self.B, self.A, alpha=self.scale)

    def _plain(self) -> Tensor:
        """W (out, in) in the factors' type."""
        weight = self.weight.T if self.transposed else self.weight
        return weight.to(self.A.dtype)
