"""A linear map whose frozen weight is kept in few bits, and dequantised whenever it is used.

So it is linear in what it reads. LLM.int8's own layer (arXiv 2208.07339) is not: it rounds what it
reads to eight bits, but for the columns where any record of the batch has a large number, so that
one record decides how others are rounded. Here none does, in training and in evaluation, on any
device. Neither pass keeps the dequantised weight.

Shapes: n examples, T positions, out, in.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.autograd import Function


class Packing(Protocol):
    """How numbers are kept."""

    def unpacked(self, codes: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        """The weight (out, in).

        Args:
            codes: whole numbers.
            scale: float32.
            dtype: of the result.
        """
        ...


class PackedLinear(nn.Linear):
    """``y = x W^T + b`` with W kept as codes and scales.

    Whoever asks for ``weight`` is given a dequantised copy, which is nobody's parameter.

    Args:
        shape: (out, in).
        codes: whole numbers, as the packing has them.
        scale: float32.
        bias: (out,) or None.
        packing: dequantises.
        dtype: of ``weight``.
    """

    codes: Tensor
    scale_bytes: Tensor

    def __init__(
        self,
        shape: tuple[int, int],
        codes: Tensor,
        scale: Tensor,
        bias: Tensor | None,
        packing: Packing,
        dtype: torch.dtype,
    ) -> None:
        nn.Module.__init__(self)  # a Linear would make a weight
        self.out_features, self.in_features = shape
        self.register_buffer("codes", codes)
        # as bytes, so that no cast of the model rounds them
        self.register_buffer("scale_bytes", scale.float().contiguous().view(torch.uint8))
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)  # type: ignore[assignment]
        self.packing = packing
        self.dtype = dtype

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """(out, in), dequantised."""
        return self.unpacked(self.dtype)

    def unpacked(self, dtype: torch.dtype) -> Tensor:
        """The weight (out, in) as numbers of this type."""
        scale = self.scale_bytes.view(torch.float32)
        return self.packing.unpacked(self.codes, scale, dtype).view(
            self.out_features, self.in_features
        )

    def dense(self, delta: Tensor | None = None) -> nn.Linear:
        """A plain map with this weight, and ``delta`` (out, in) added before it is rounded."""
        weight = self.unpacked(torch.float32)
        weight = (weight if delta is None else weight.to(delta) + delta).to(self.dtype)
        plain = nn.Linear(1, 1, bias=False, device="meta")
        plain.in_features, plain.out_features = self.in_features, self.out_features
        plain.weight = nn.Parameter(weight, requires_grad=False)
        plain.bias = self.bias
        return plain

    def forward(self, x: Tensor) -> Tensor:
        """(n, ..., in) to (n, ..., out), of the type of ``x``."""
        y: Tensor = _Unpacked.apply(x, self)  # type: ignore[no-untyped-call]
        return y if self.bias is None else y + self.bias.to(y.dtype)


class _Unpacked(Function):
    """``x W^T``; W is dequantised again for the backward pass rather than kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: PackedLinear) -> Tensor:
        ctx.layer = layer
        return F.linear(x, layer.unpacked(x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0] @ ctx.layer.unpacked(grads[0].dtype), None
