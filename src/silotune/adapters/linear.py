"""The adapted layer: any linear base module, a black box, with a low-rank pair beside it.

``y = base(x) + scale * (F + gain B A) x``, where F is what earlier rounds folded, if anything, less
the part of the base weight that the pair began at, if it did. The
scale lives here and nowhere else; the gain is 1 but for a pair of a rank of its own, whose scale
goes by that. Where the base is a plain matrix of the factors' own type, the layer
runs on the merged weight; a half-precision or quantised base, or dropout, keeps F and the pair
beside it in float32. The base itself is never written to.

Shapes: out, in, r rank.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from silotune.core import Crowd, Key, PerExampleGradients, Role, Site
from silotune.linalg import LowRank, Matrix, add

from .crowd_kernels import own_linear, own_pairs
from .kernels import merged_lora, rows_linear
from .site_layer import SiteLayer, zeros


class AdaptedLinear(SiteLayer):
    """One site with its pair. Replaces the base module inside the model."""

    def __init__(
        self,
        site: Site,
        scale: float,
        rank: int,
        dropout: float,
        sink: PerExampleGradients,
        born: LowRank | None = None,
    ) -> None:
        super().__init__(site)
        self.scale = scale
        self.gain = 1.0
        self.dropout = dropout
        self.A = zeros(site, rank, site.in_features)
        self.B = zeros(site, site.out_features, rank)
        self._taken_out = None if born is None else born * -1.0
        self._sink = sink
        self._keys = (Key(site.name, Role.A), Key(site.name, Role.B))
        self._given: Matrix | None = None
        self._carry(self._taken_out)

    def tensors(self) -> dict[Key, nn.Parameter]:
        """The pair by key."""
        return dict(zip(self._keys, (self.A, self.B), strict=True))

    def fold(self, matrix: Matrix | None) -> None:
        """Set what was folded (out, in), unscaled, in place of what was there.

        Raises:
            ValueError: if the shape is not the layer's.
        """
        if matrix is self._given:
            return
        if matrix is not None and tuple(matrix.shape) != (self.B.shape[0], self.A.shape[1]):
            raise ValueError(f"{self.site}: a fold of shape {tuple(matrix.shape)}")
        self._given = matrix
        if matrix is None or self._taken_out is None:
            self._carry(matrix if self._taken_out is None else self._taken_out)
        else:
            self._carry(add(matrix, self._taken_out))

    def _carry(self, matrix: Matrix | None) -> None:
        """Set F (out, in), and W + scale F where the base is plain."""
        self.folded: Matrix | None = matrix
        self._carrying: Tensor | None = None
        if matrix is not None and self.is_plain(self.A):
            base = self.weight.T if self.transposed else self.weight
            self._carrying = (base + self.scale * _dense(matrix, self.A)).detach()

    def delta(self) -> Tensor:
        """Scale (F + gain B A)."""
        pair = self.gain * (self.B.detach() @ self.A.detach())
        whole = pair if self.folded is None else pair + _dense(self.folded, pair)
        return self.scale * whole

    def merged(self) -> Tensor:
        """W + scale (F + gain B A) (out, in), with the pair's graph; where the base is plain."""
        return torch.addmm(self._frozen(), self.B, self.A, alpha=self.scale * self.gain)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        if self._sink.crowd is not None:
            return self._of_each(x, self._sink.crowd)
        dropout = self.dropout if self.training and self._sink.is_open else 0.0
        if dropout or not self.is_plain(self.A):
            return self._beside(x, dropout)
        if not self._sink.is_open:
            return F.linear(x, self.merged(), self.bias)
        base, factors, scale = (self._frozen(), self.bias), (self.A, self.B), self.scale * self.gain
        return merged_lora(x, base, factors, scale, self._sink, self._keys, self.records)

    def _frozen(self) -> Tensor:
        """W + scale F (out, in)."""
        if self._carrying is not None:
            return self._carrying
        return self.weight.T if self.transposed else self.weight

    def _of_each(self, x: Tensor, crowd: Crowd) -> Tensor:
        """With the pair of each record's client."""
        trained, scale = (self.A, self.B), self.scale * self.gain
        own = (crowd.own(self._keys[0], self.A), crowd.own(self._keys[1], self.B))
        plain = self.is_plain(self.A)
        rows = self._sink.rows(self._keys[0], x if plain else x.to(self.A.dtype), self.records)
        base = (self._frozen(), self.bias) if plain else (None, None)
        y = own_pairs(rows, base, trained, own, scale, self._sink, self._keys)
        y = self.records.back(y, x.shape[:-1])
        if plain:
            return y
        beside = self._folded_base(x)
        return beside + y.to(beside.dtype)

    def _folded_base(self, x: Tensor) -> Tensor:
        """The base's output, with what was folded added to it."""
        y: Tensor = self.base(x)
        if self.folded is None:
            return y
        return y + (self.scale * _applied(self.folded, x.to(self.A.dtype))).to(y.dtype)

    def _beside(self, x: Tensor, dropout: float) -> Tensor:
        """The pair in its own precision, added to the base's output."""
        y = self._folded_base(x)
        x = F.dropout(x, dropout).to(self.A.dtype)
        z = self._map(x, self.A, 1.0, self._keys[0])
        return y + self._map(z, self.B, self.scale * self.gain, self._keys[1]).to(y.dtype)

    def _map(self, x: Tensor, weight: Tensor, scale: float, key: Key) -> Tensor:
        if self._sink.is_open and weight.requires_grad:
            return rows_linear(x, weight, None, scale, self._sink, [key], self.records)
        return F.linear(x, weight) * scale


class Head(nn.Module):
    """A linear head whose tensors are trained and averaged as they are.

    ``y = scale * (W x + b)``: the scale balances the head's gradient against the adapters' under
    one clipping norm. Factors hold W and b unscaled, as they hold B and A.
    """

    def __init__(self, site: Site, scale: float, sink: PerExampleGradients) -> None:
        super().__init__()
        device = next(site.module.parameters()).device
        self.scale = scale
        self.weight = nn.Parameter(torch.zeros(site.out_features, site.in_features, device=device))
        has_bias = isinstance(site.module.bias, Tensor)
        self.bias = (
            nn.Parameter(torch.zeros(site.out_features, device=device)) if has_bias else None
        )
        self._sink = sink
        self._records = site.records
        self._keys = [Key(site.name, Role.HEAD, part) for part in ("weight", "bias")]

    def tensors(self) -> dict[Key, nn.Parameter]:
        """Weight and, if there is one, bias by key."""
        present = [self.weight] if self.bias is None else [self.weight, self.bias]
        return dict(zip(self._keys, present, strict=False))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out), computed in float32."""
        x_own = x.to(self.weight.dtype)
        if self._sink.crowd is not None:
            return self._of_each(x_own, self._sink.crowd).to(x.dtype)
        if self._sink.is_open and self.weight.requires_grad:
            keys, records = self._keys, self._records
            y = rows_linear(x_own, self.weight, self.bias, self.scale, self._sink, keys, records)
        else:
            y = F.linear(x_own, self.weight, self.bias) * self.scale
        return y.to(x.dtype)

    def _of_each(self, x: Tensor, crowd: Crowd) -> Tensor:
        """With the head of each record's client."""
        own = crowd.own(self._keys[0], self.weight)
        bias = None if self.bias is None else crowd.own(self._keys[1], self.bias)
        rows = self._sink.rows(self._keys[0], x, self._records)
        trained = (self.weight, self.bias)
        y = own_linear(rows, trained, (own, bias), self.scale, self._sink, self._keys)
        return self._records.back(y, x.shape[:-1])


def _dense(matrix: Matrix, like: Tensor) -> Tensor:
    """(out, in) in the type and place of ``like``."""
    if isinstance(matrix, LowRank):
        return matrix.left.to(like) @ matrix.right.to(like)
    return matrix.to(like)


def _applied(matrix: Matrix, x: Tensor) -> Tensor:
    """(..., in) to (..., out)."""
    if isinstance(matrix, LowRank):
        return F.linear(F.linear(x, matrix.right.to(x)), matrix.left.to(x))
    return F.linear(x, matrix.to(x))
