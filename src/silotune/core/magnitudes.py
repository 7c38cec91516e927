"""How large a number from outside may be: the one check that stands before all algebra.

What is pooled is multiplied by its partner (B A), that by a factor again (B A A^T), and squared
(the norm of B A): four factors at the most. A tensor whose norm is at most 2^(e/4 - 1), for a type
whose numbers end at 2^e, lets all of these be written in its own type: 2^31 in float32, 2^255 in
float64.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from .factors import Factors, Key


def largest_norm(dtype: torch.dtype) -> float:
    """Of a tensor of that type that may be pooled (L2)."""
    _, exponent = math.frexp(torch.finfo(dtype).max)
    return 2.0 ** (exponent // 4 - 1)


def bounded(tensor: Tensor) -> bool:
    """Whether every number is finite and the norm is at most ``largest_norm`` of the type.

    Squares that float64 cannot hold are of numbers far beyond it, or far too small to count.
    """
    norm = torch.linalg.vector_norm(tensor.detach(), dtype=torch.float64)
    return float(norm) <= largest_norm(tensor.dtype)  # which no NaN is


def unbounded(tensors: Factors, keys: Iterable[Key] | None = None) -> Key | None:
    """The first tensor that is not ``bounded``; None if all are.

    Args:
        tensors: from outside.
        keys: of those that count; None for all.
    """
    which = tensors if keys is None else keys
    limits = ((key, largest_norm(tensors[key].dtype)) for key in which)
    return next((key for key, most in limits if not tensors.norm(key) <= most), None)
