"""Kernels for records that meet tensors of their own: those of the client that each belongs to.

The products are batched over records, and beside the frozen weight, which all records share: a
weight merged for each client would be as large as the layer. As ``kernels`` they leave the gradient
of every record in the sink.

Shapes: n records, T positions of each, in, out, r rank. A tensor that all records share is given
without n.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.autograd import Function

from silotune.core import Key, PerExampleGradients


def own_pairs(
    x: Tensor,
    base: tuple[Tensor | None, Tensor | None],
    trained: tuple[Tensor, Tensor],
    factors: tuple[Tensor, Tensor],
    scale: float,
    sink: PerExampleGradients,
    keys: tuple[Key, Key],
) -> Tensor:
    """``x W^T + b + scale x A^T B^T``; gradients of A, B that train go to the sink.

    Args:
        x: (n, T, in).
        base: frozen W (out, in), None for zero, and b (out,) or None.
        trained: the layer's A and B, of which only is read whether they train.
        factors: A ([n,] r, in) and B ([n,] out, r).
        scale: alpha/r.
        sink: open.
        keys: of A and of B.
    """
    y: Tensor = _OwnPairs.apply(x, *base, *trained, *factors, scale, sink, keys)
    return y


def own_linear(
    x: Tensor,
    trained: tuple[Tensor, Tensor | None],
    own: tuple[Tensor, Tensor | None],
    scale: float,
    sink: PerExampleGradients,
    keys: list[Key],
) -> Tensor:
    """``scale (x W^T + b)``; gradients of W and b that train go to the sink.

    Args:
        x: (n, T, in).
        trained: the layer's W and b, of which only is read whether they train.
        own: W ([n,] out, in) and b ([n,] out) or None.
        scale: of all.
        sink: open.
        keys: of W, and of b.
    """
    y: Tensor = _OwnLinear.apply(x, *trained, *own, scale, sink, keys)
    return y


class _OwnPairs(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        trained_a: Tensor,
        trained_b: Tensor,
        a: Tensor,
        b: Tensor,
        scale: float,
        sink: PerExampleGradients,
        keys: tuple[Key, Key],
    ) -> Tensor:
        z = x @ a.mT
        ctx.save_for_backward(x if ctx.needs_input_grad[3] else None, z, weight, a, b)
        ctx.scale, ctx.sink, ctx.keys = scale, sink, keys
        if weight is None:
            return (z @ b.mT).mul_(scale)
        return _added(F.linear(x, weight, bias), z, b.mT, scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, z, weight, a, b = ctx.saved_tensors
        need_x, _, _, need_a, need_b = ctx.needs_input_grad[:5]
        g = grads[0]
        if need_b:
            ctx.sink.product(ctx.keys[1], g, z * ctx.scale)
        if not (need_a or need_x):
            return (None,) * 10
        dx, h = None, g @ b  # (n, T, r)
        if need_a:
            ctx.sink.product(ctx.keys[0], h * ctx.scale, x)
        if need_x:
            dx = (h @ a).mul_(ctx.scale) if weight is None else _added(g @ weight, h, a, ctx.scale)
        return dx, *[None] * 9


class _OwnLinear(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        trained_weight: Tensor,
        trained_bias: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        scale: float,
        sink: PerExampleGradients,
        keys: list[Key],
    ) -> Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        ctx.scale, ctx.sink, ctx.keys = scale, sink, keys
        y = x @ weight.mT
        if bias is not None:
            y = y + bias.unsqueeze(-2)
        return y if scale == 1.0 else y * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        g = grads[0] if ctx.scale == 1.0 else grads[0] * ctx.scale
        need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
        if need_weight:
            ctx.sink.product(ctx.keys[0], g, x)
        if need_bias:
            ctx.sink.total(ctx.keys[1], g)
        return g @ weight if need_x else None, *[None] * 7


def _added(y: Tensor, left: Tensor, right: Tensor, scale: float) -> Tensor:
    """``y + scale left right`` (n, T, features), in the place of y."""
    if right.dim() == 3:
        return y.baddbmm_(left, right, alpha=scale)
    return y.add_(left @ right, alpha=scale)
