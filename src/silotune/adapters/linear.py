"""The adapted layer: any linear base module, a black box, with a low-rank pair beside it.

``y = base(x) + scale * B A x``. The scale lives here and nowhere else. Where the base is a plain
matrix of the factors' own type, the layer runs on the merged weight; a half-precision or
quantised base, or dropout, keeps the pair beside it in float32.

Shapes: out, in, r rank.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from silotune.core import GradientSink, Key, Role, Site

from .base import Adapter
from .kernels import merged_lora, rows_linear


class AdaptedLinear(nn.Module):
    """One site with its pair. Replaces the base module inside the model."""

    def __init__(self, site: Site, adapter: Adapter, sink: GradientSink) -> None:
        super().__init__()
        self.base = site.module
        self.scale = adapter.scale
        self.dropout = adapter.dropout
        self.transposed = site.transposed
        self.A = _zeros(site, adapter.rank, site.in_features)
        self.B = _zeros(site, site.out_features, adapter.rank)
        self._sink = sink
        self._keys = (Key(site.name, Role.A), Key(site.name, Role.B))

    @property
    def weight(self) -> Tensor:
        """The base weight, for models that look at their layers' weights."""
        return self.base.get_parameter("weight")

    @property
    def bias(self) -> Tensor | None:
        """The base bias, likewise."""
        return self.base.bias if isinstance(self.base.bias, Tensor) else None

    def tensors(self) -> dict[Key, nn.Parameter]:
        """The pair by key."""
        return dict(zip(self._keys, (self.A, self.B), strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """(n, ..., in) to (n, ..., out)."""
        dropout = self.dropout if self.training and self._sink.is_open else 0.0
        if dropout or self.weight.dtype != self.A.dtype:
            return self._beside(x, dropout)
        weight = self.weight.T if self.transposed else self.weight
        if not self._sink.is_open:
            return F.linear(x, torch.addmm(weight, self.B, self.A, alpha=self.scale), self.bias)
        base, factors = (weight, self.bias), (self.A, self.B)
        return merged_lora(x, base, factors, self.scale, self._sink, self._keys)

    def _beside(self, x: Tensor, dropout: float) -> Tensor:
        """The pair in its own precision, added to the base's output."""
        y: Tensor = self.base(x)
        x = F.dropout(x, dropout).to(self.A.dtype)
        z = self._map(x, self.A, 1.0, self._keys[0])
        return y + self._map(z, self.B, self.scale, self._keys[1]).to(y.dtype)

    def _map(self, x: Tensor, weight: Tensor, scale: float, key: Key) -> Tensor:
        if self._sink.is_open and weight.requires_grad:
            return rows_linear(x, weight, None, scale, self._sink, [key])
        return F.linear(x, weight) * scale


class Head(nn.Module):
    """A linear head whose tensors are trained and averaged as they are.

    ``y = scale * (W x + b)``: the scale balances the head's gradient against the adapters' under
    one clipping norm. Factors hold W and b unscaled, as they hold B and A.
    """

    def __init__(self, site: Site, scale: float, sink: GradientSink) -> None:
        super().__init__()
        device = next(site.module.parameters()).device
        self.scale = scale
        self.weight = nn.Parameter(torch.zeros(site.out_features, site.in_features, device=device))
        has_bias = isinstance(site.module.bias, Tensor)
        self.bias = (
            nn.Parameter(torch.zeros(site.out_features, device=device)) if has_bias else None
        )
        self._sink = sink
        self._keys = [Key(site.name, Role.HEAD, part) for part in ("weight", "bias")]

    def tensors(self) -> dict[Key, nn.Parameter]:
        """Weight and, if there is one, bias by key."""
        present = [self.weight] if self.bias is None else [self.weight, self.bias]
        return dict(zip(self._keys, present, strict=False))

    def forward(self, x: Tensor) -> Tensor:
        """(n, ..., in) to (n, ..., out), computed in float32."""
        x_own = x.to(self.weight.dtype)
        if self._sink.is_open and self.weight.requires_grad:
            y = rows_linear(x_own, self.weight, self.bias, self.scale, self._sink, self._keys)
        else:
            y = F.linear(x_own, self.weight, self.bias) * self.scale
        return y.to(x.dtype)


def _zeros(site: Site, *shape: int) -> nn.Parameter:
    """On the base's device; float32, whatever the base's half precision or quantisation."""
    weight = site.module.get_parameter("weight")
    dtype = torch.promote_types(weight.dtype, torch.float32)
    return nn.Parameter(torch.zeros(shape, dtype=dtype, device=weight.device))
