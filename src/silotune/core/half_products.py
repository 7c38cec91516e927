"""Products in bfloat16: a frozen linear map that multiplies in half the digits, between two casts.

``y = float32(bfloat16(x) bfloat16(W)^T) + b``, and the gradient of x likewise. Sums of products are
float32 inside a kernel; what goes in and comes out is rounded to 8 bits. W itself is kept as it is,
beside its rounded copy.

Shapes: n examples, T positions, out, in.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from .packed_linear import PackedLinear

FAST = 1.2
"""How much faster than in float32 products must be to be worth their digits."""

_MARK = "half_products"


def halve(module: nn.Module, *, transposed: bool = False) -> None:
    """Let a linear map multiply in bfloat16 from now on.

    Args:
        module: with a weight of float32 that never moves; nobody's parameter is changed.
        transposed: the weight is stored as (in, out).

    Raises:
        ValueError: if its weight has fewer digits already.
    """
    weight, bias = module.weight, module.bias
    assert isinstance(weight, Tensor)
    if weight.dtype != torch.float32 or isinstance(module, PackedLinear):
        raise ValueError(
            "products: bfloat16 is for a base in float32; leave it out beside dtype and "
            "quantization"
        )
    whole = weight.detach().T if transposed else weight.detach()
    half = whole.to(torch.bfloat16).contiguous()

    def forward(x: Tensor) -> Tensor:
        y = F.linear(x.to(torch.bfloat16), half).to(x.dtype)
        return y + bias if isinstance(bias, Tensor) else y

    vars(module)["forward"] = forward
    vars(module)[_MARK] = True


def is_halved(module: nn.Module) -> bool:
    """Whether it multiplies in bfloat16."""
    return _MARK in vars(module)


def speed_up(device: torch.device) -> float:
    """How many times as fast as in float32 this machine multiplies in bfloat16, casts included.

    The least of several tries of each, so that what else the machine does moves it little.
    """
    x, w = (torch.randn(rows, 768, device=device) for rows in (512, 768))
    half = w.to(torch.bfloat16)
    whole = _least(lambda: F.linear(x, w), device)
    return whole / _least(lambda: F.linear(x.to(torch.bfloat16), half).float(), device)


def require_fast(device: torch.device) -> None:
    """See that a device gains by it.

    Raises:
        ValueError: if it does not.
    """
    measured = speed_up(device)
    if measured < FAST:
        raise ValueError(
            f"products: this machine ({device.type}) multiplies in bfloat16 at {measured:.2g} "
            "times the speed of float32, so that it would lose digits and gain nothing; set it to "
            "float32"
        )


def _least(product: Callable[[], Tensor], device: torch.device) -> float:
    """Seconds of the fastest of some tries."""
    seconds = []
    with torch.inference_mode():
        for _ in range(6):
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            begin = time.perf_counter()
            product()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - begin)
    return min(seconds[1:])
