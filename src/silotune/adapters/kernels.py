"""The backward kernels: one backward pass leaves the gradient of every single example.

A weight's per-example gradient is one batched product of the layer's input and the gradient of
its output. The kernels write it into the sink and give autograd nothing for the weight, so there
is no second pass, no hook and no list of gradients to sum up again. The base weight needs no
gradient, which is why ghost clipping (two backward passes) cannot be faster here. Where the sink
takes sums, autograd gets the weight's gradient, and nothing is asked of the input's shape.

Every kernel works on two dimensions, positions and features: what it gives is no view, so models
may write into it.

Shapes: n examples, P positions of all examples (tokens, patches; 1 each after pooling), in, out,
r rank.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.autograd import Function

from silotune.core import LEADING, Key, PerExampleGradients, RecordAxis


def rows_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: float,
    sink: PerExampleGradients,
    keys: list[Key],
    records: RecordAxis = LEADING,
) -> Tensor:
    """``scale * (x W^T + b)``; gradients of W (and b) go to the sink under ``keys``.

    Args:
        x: (..., in).
        weight: (out, in), trained.
        bias: (out,), trained, or None.
        scale: the layer's one scale.
        sink: open.
        keys: of the weight, then of the bias.
        records: where they lie in x.
    """
    place = (x.shape[:-1], records)
    y: Tensor = _RowsLinear.apply(_flat(x), weight, bias, scale, sink, keys, place)
    return y.view(*x.shape[:-1], -1)


def merged_lora(
    x: Tensor,
    base: tuple[Tensor, Tensor | None],
    factors: tuple[Tensor, Tensor],
    scale: float,
    sink: PerExampleGradients,
    keys: tuple[Key, Key],
    records: RecordAxis = LEADING,
) -> Tensor:
    """``x (W + scale B A)^T + b`` as one product; gradients of A, B that train go to the sink.

    Only z = x A^T is kept for the backward pass when A is frozen (FFA-LoRA); the merged weight is
    made again there rather than kept.

    Args:
        x: (..., in).
        base: frozen W (out, in) and b (out,) or None.
        factors: A (r, in) and B (out, r).
        scale: alpha/r.
        sink: open.
        keys: of A and of B.
        records: where they lie in x.
    """
    place = (x.shape[:-1], records)
    y: Tensor = _MergedLoRA.apply(_flat(x), *base, *factors, scale, sink, keys, place)
    return y.view(*x.shape[:-1], -1)


def merged_core(
    x: Tensor,
    base: tuple[Tensor, Tensor | None],
    factors: tuple[Tensor, Tensor, Tensor],
    scale: float,
    sink: PerExampleGradients,
    key: Key,
    records: RecordAxis = LEADING,
) -> Tensor:
    """``x (W + scale B R A)^T + b`` as one product; the gradient of R goes to the sink.

    A record's is ``scale (B^T g)(A x)^T`` summed over its positions: only A x is kept for it.

    Args:
        x: (..., in).
        base: frozen W (out, in) and b (out,) or None.
        factors: A (r, in) and B (out, r), frozen, and R (r, r), trained.
        scale: alpha/r.
        sink: open.
        key: of R.
        records: where they lie in x.
    """
    place = (x.shape[:-1], records)
    y: Tensor = _MergedCore.apply(_flat(x), *base, *factors, scale, sink, key, place)
    return y.view(*x.shape[:-1], -1)


def rows_scaled(
    v: Tensor,
    more: Tensor,
    lengths: Tensor,
    norms: Tensor,
    sink: PerExampleGradients,
    key: Key,
    records: RecordAxis = LEADING,
) -> Tensor:
    """``(lengths + more) / norms v``, by features; the gradient of ``more`` goes to the sink.

    Args:
        v: (..., out).
        more: (out,), trained.
        lengths: (out,), frozen.
        norms: (out,), which pass no gradient.
        sink: open.
        key: of ``more``.
        records: where they lie in v.
    """
    place = (v.shape[:-1], records)
    y: Tensor = _RowsScaled.apply(_flat(v), more, lengths, norms, sink, key, place)
    return y.view(v.shape)


def dense_map(
    x: Tensor,
    base: tuple[Tensor | None, Tensor | None],
    delta: Tensor,
    sink: PerExampleGradients,
    key: Key,
    records: RecordAxis = LEADING,
) -> Tensor:
    """``x (W + D)^T + b``; the gradient of D goes to the sink.

    W + D is made again for the backward pass rather than kept: it is as large as the layer.

    Args:
        x: (..., in).
        base: frozen W (out, in), None for zero, and b (out,) or None.
        delta: D (out, in), trained.
        sink: open.
        key: of D.
        records: where they lie in x.
    """
    place = (x.shape[:-1], records)
    y: Tensor = _DenseMap.apply(_flat(x), *base, delta, sink, key, place)
    return y.view(*x.shape[:-1], -1)


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


_Place = tuple[torch.Size, RecordAxis]
"""The shape of an input without its features, and where the records lie in it."""


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
        place: _Place,
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.scale, ctx.sink, ctx.keys, ctx.place = scale, sink, keys, place
        y = F.linear(x, weight, bias)
        return y if scale == 1.0 else y * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        g = grads[0] if ctx.scale == 1.0 else grads[0] * ctx.scale
        shape, records = ctx.place
        dw = db = None
        if ctx.needs_input_grad[1]:
            dw = ctx.sink.product(ctx.keys[0], _as(g, shape), _as(x, shape), records)
        if ctx.needs_input_grad[2]:
            db = ctx.sink.total(ctx.keys[1], _as(g, shape), records)
        dx = g @ weight if ctx.needs_input_grad[0] else None
        return dx, dw, db, None, None, None, None


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
        place: _Place,
    ) -> Tensor:
        kept = x if ctx.needs_input_grad[3] else _thin(x, a)
        ctx.save_for_backward(kept, weight, a, b)
        ctx.scale, ctx.sink, ctx.keys, ctx.place = scale, sink, keys, place
        return F.linear(x, _merged_pair(weight, b, a, scale, sink), bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        kept, weight, a, b = ctx.saved_tensors
        need_x, _, _, need_a, need_b = ctx.needs_input_grad[:5]
        g = grads[0]
        shape, records = ctx.place
        z, da, db = kept, None, None
        if need_a:
            z = _thin(kept, a)
            h = g @ (b * ctx.scale)  # (P, r)
            da = ctx.sink.product(ctx.keys[0], _as(h, shape), _as(kept, shape), records)
        if need_b:
            db = ctx.sink.product(ctx.keys[1], _as(g, shape), _as(z * ctx.scale, shape), records)
        dx = g @ _merged_pair(weight, b, a, ctx.scale, ctx.sink) if need_x else None
        return dx, None, None, da, db, None, None, None, None


class _MergedCore(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        core: Tensor,
        scale: float,
        sink: PerExampleGradients,
        key: Key,
        place: _Place,
    ) -> Tensor:
        ctx.save_for_backward(_thin(x, a), weight, a, b, core)
        ctx.scale, ctx.sink, ctx.key, ctx.place = scale, sink, key, place
        return F.linear(x, _merged_pair(weight, b @ core, a, scale, sink), bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        z, weight, a, b, core = ctx.saved_tensors
        g = grads[0]
        shape, records = ctx.place
        dr = None
        if ctx.needs_input_grad[5]:
            h = g @ (b * ctx.scale)  # (P, r)
            dr = ctx.sink.product(ctx.key, _as(h, shape), _as(z, shape), records)
        need_x = ctx.needs_input_grad[0]
        dx = g @ _merged_pair(weight, b @ core, a, ctx.scale, ctx.sink) if need_x else None
        return dx, None, None, None, None, dr, None, None, None, None


class _RowsScaled(Function):
    @staticmethod
    def forward(
        ctx: Any,
        v: Tensor,
        more: Tensor,
        lengths: Tensor,
        norms: Tensor,
        sink: PerExampleGradients,
        key: Key,
        place: _Place,
    ) -> Tensor:
        stretch = (lengths + more) / norms
        ctx.save_for_backward(v, stretch, norms)
        ctx.sink, ctx.key, ctx.place = sink, key, place
        return v * stretch

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        v, stretch, norms = ctx.saved_tensors
        g = grads[0]
        shape, records = ctx.place
        dm = None
        if ctx.needs_input_grad[1]:
            dm = ctx.sink.total(ctx.key, _as(g * v / norms, shape), records)
        dv = g * stretch if ctx.needs_input_grad[0] else None
        return dv, dm, None, None, None, None, None


class _DenseMap(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        delta: Tensor,
        sink: PerExampleGradients,
        key: Key,
        place: _Place,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, delta)
        ctx.sink, ctx.key, ctx.place = sink, key, place
        return F.linear(x, _merged(weight, delta), bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, delta = ctx.saved_tensors
        g = grads[0]
        shape, records = ctx.place
        dd = None
        if ctx.needs_input_grad[3]:
            dd = ctx.sink.product(ctx.key, _as(g, shape), _as(x, shape), records)
        dx = g @ _merged(weight, delta) if ctx.needs_input_grad[0] else None
        return dx, None, None, dd, None, None, None


class _RowsExpanded(Function):
    @staticmethod
    def forward(ctx: Any, parameter: Tensor, n: int, sink: PerExampleGradients, key: Key) -> Tensor:
        ctx.sink, ctx.key = sink, key
        return parameter.expand(n, *parameter.shape).clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.sink.copies(ctx.key, grads[0]), None, None, None


def _flat(x: Tensor) -> Tensor:
    """(..., features) as (P, features)."""
    return x.reshape(-1, x.shape[-1])


def _as(t: Tensor, shape: torch.Size) -> Tensor:
    """(P, features) as (..., features)."""
    return t.view(*shape, -1)


def _thin(x: Tensor, a: Tensor) -> Tensor:
    """``x A^T`` (P, r), laid out in memory as A x^T: few rows of many columns multiply faster."""
    return (a @ x.mT).mT


def _merged_pair(
    weight: Tensor, b: Tensor, a: Tensor, scale: float, sink: PerExampleGradients
) -> Tensor:
    """``W + scale B A``, to be used at once: the next one is written over it."""
    return torch.addmm(weight, b, a, alpha=scale, out=sink.scratch(weight))


def _merged(weight: Tensor | None, delta: Tensor) -> Tensor:
    return delta if weight is None else weight + delta
