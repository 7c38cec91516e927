"""The two backward kernels: one backward pass leaves the gradient of every single example.

A weight's per-example gradient is one batched product of the layer's input and the gradient of
its output. The kernels write it into the sink and give autograd nothing for the weight, so there
is no second pass, no hook and no list of gradients to sum up again. The base weight needs no
gradient, which is why ghost clipping (two backward passes) cannot be faster here.

Shapes: n examples, T positions (tokens, patches; 1 after pooling), in, out, r rank.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.autograd import Function

from silotune.core import Key, PerExampleGradients


def rows_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: float,
    sink: PerExampleGradients,
    keys: list[Key],
) -> Tensor:
    """``scale * (x W^T + b)``; rows for W (and b) go to the sink under ``keys``.

    Args:
        x: (n, ..., in).
        weight: (out, in), trained.
        bias: (out,), trained, or None.
        scale: the layer's one scale.
        sink: open.
        keys: of the weight, then of the bias.
    """
    y: Tensor = _RowsLinear.apply(x, weight, bias, scale, sink, keys)
    return y


def merged_lora(
    x: Tensor,
    base: tuple[Tensor, Tensor | None],
    factors: tuple[Tensor, Tensor],
    scale: float,
    sink: PerExampleGradients,
    keys: tuple[Key, Key],
) -> Tensor:
    """``x (W + scale B A)^T + b`` as one product; rows for those of A, B that require a gradient.

    Only z = x A^T is kept for the backward pass when A is frozen (FFA-LoRA); the merged weight is
    made again there rather than kept.

    Args:
        x: (n, ..., in).
        base: frozen W (out, in) and b (out,) or None.
        factors: A (r, in) and B (out, r).
        scale: alpha/r.
        sink: open.
        keys: of A and of B.
    """
    y: Tensor = _MergedLoRA.apply(x, *base, *factors, scale, sink, keys)
    return y


def rows_expanded(parameter: Tensor, n: int, sink: PerExampleGradients, key: Key) -> Tensor:
    """One copy (n, *shape) for each example, of numbers that act through no linear map.

    Only for a few: the gradients of the copies are the rows.

    Args:
        parameter: trained.
        n: examples.
        sink: open.
        key: of the parameter.
    """
    y: Tensor = _RowsExpanded.apply(parameter, n, sink, key)
    return y


class _RowsLinear(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        scale: float,
        sink: PerExampleGradients,
        keys: list[Key],
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.scale, ctx.sink, ctx.keys, ctx.has_bias = scale, sink, keys, bias is not None
        y = F.linear(x, weight, bias)
        return y if scale == 1.0 else y * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        g = grads[0] if ctx.scale == 1.0 else grads[0] * ctx.scale
        g_rows = _by_example(g)
        if ctx.needs_input_grad[1]:
            ctx.sink.add(ctx.keys[0], torch.bmm(g_rows.mT, _by_example(x)))
        if ctx.has_bias and ctx.needs_input_grad[2]:
            ctx.sink.add(ctx.keys[1], g_rows.sum(dim=1))
        dx = g @ weight if ctx.needs_input_grad[0] else None
        return dx, None, None, None, None, None


class _MergedLoRA(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scale: float,
        sink: PerExampleGradients,
        keys: tuple[Key, Key],
    ) -> Tensor:
        kept = x if ctx.needs_input_grad[3] else F.linear(x, a)
        ctx.save_for_backward(kept, weight, a, b)
        ctx.scale, ctx.sink, ctx.keys = scale, sink, keys
        return F.linear(x, torch.addmm(weight, b, a, alpha=scale), bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        kept, weight, a, b = ctx.saved_tensors
        need_x, _, _, need_a, need_b = ctx.needs_input_grad[:5]
        g = grads[0]
        g_rows = _by_example(g)
        z = kept
        if need_a:
            z = F.linear(kept, a)
            h = torch.matmul(g_rows, b * ctx.scale)  # (n, T, r)
            ctx.sink.add(ctx.keys[0], torch.bmm(h.mT, _by_example(kept)))
        if need_b:
            ctx.sink.add(ctx.keys[1], torch.bmm(g_rows.mT, _by_example(z) * ctx.scale))
        dx = g @ torch.addmm(weight, b, a, alpha=ctx.scale) if need_x else None
        return dx, None, None, None, None, None, None, None


class _RowsExpanded(Function):
    @staticmethod
    def forward(ctx: Any, parameter: Tensor, n: int, sink: PerExampleGradients, key: Key) -> Tensor:
        ctx.sink, ctx.key = sink, key
        return parameter.expand(n, *parameter.shape).clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        ctx.sink.add(ctx.key, grads[0])
        return None, None, None, None


def _by_example(t: Tensor) -> Tensor:
    """(n, ..., features) as (n, T, features)."""
    return t.reshape(t.shape[0], -1, t.shape[-1])
