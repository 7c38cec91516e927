"""Upload: the tensors that a client sends, in 32, 16 or 8 bits a number.

In fewer bits than 32 a client sends by how much each number has changed in the round, rounded to
one of its two neighbours that can be written, at random, so that it is right on average (stochastic
rounding: Gupta et al., ICML 2015; in levels of one scale a tensor: QSGD, Alistarh et al., 2017).

    bfloat16   neighbours are a factor of 1 + 2^-7 apart at most
    int8       neighbours are s = max |change| / 127 apart; s is sent with the tensor

The coins come from the task's seed and the tensor's name. That is public, and independent of every
record and of all privacy noise: what is rounded has left the mechanism, so rounding it is
post-processing. Where the server hides its clients, it clips and noises what has arrived.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from silotune.core import Factors, UploadType, generator

_LEVELS = 127
"""Of int8 on either side of 0."""

_SCALE = struct.Struct(">f")


class Narrow(NamedTuple):
    """What is sent in place of tensors.

    Attributes:
        tensors: of the type that is sent.
        scales: of int8, one a tensor in their order, float32 in hexadecimal; else empty.
    """

    tensors: Factors
    scales: str = ""


def narrowed(shared: Factors, start: Factors, upload: UploadType, seed: int) -> Narrow:
    """What a client sends of its shared tensors.

    Args:
        shared: as they are at the end of the round.
        start: as they were at its beginning, which the server knows.
        upload: the type of what is sent.
        seed: of the coins, public and of this client and round alone.
    """
    if upload == "float32":
        return Narrow(shared)
    moved = shared.zip(start, lambda x, y: x.cpu().double() - y.cpu().double())
    coins = {key: generator("upload", seed, *key) for key in moved}
    if upload == "bfloat16":
        return Narrow(Factors({key: _bfloat16(t, coins[key]) for key, t in moved.items()}))
    scales = [_scale(t) for t in moved.values()]
    each = zip(moved.items(), scales, strict=True)
    return Narrow(
        Factors({key: _int8(t, scale, coins[key]) for (key, t), scale in each}),
        b"".join(map(_SCALE.pack, scales)).hex(),
    )


def widened(sent: Narrow, start: Factors, upload: UploadType) -> Factors:
    """The shared tensors as the server takes them; those that were sent as float32 unlooked at.

    Args:
        sent: as it arrived; nothing of it is trusted.
        start: the shared tensors at the beginning of the round.
        upload: the type that was agreed.

    Raises:
        ValueError: if the tensors or scales are not those of ``start`` in that type.
    """
    if upload == "float32":
        if sent.scales:
            raise ValueError("scales are of int8")
        return sent.tensors
    kind = torch.bfloat16 if upload == "bfloat16" else torch.int8
    arrived = {key: (tuple(t.shape), t.dtype) for key, t in sent.tensors.items()}
    asked = {key: (tuple(t.shape), kind) for key, t in start.items()}
    if arrived != asked:
        wrong = min(key for key, _ in arrived.items() ^ asked.items())
        raise ValueError(f"tensors differ from what was asked for: {wrong}")
    scales = _scales(sent.scales, len(asked) if upload == "int8" else 0)
    each = zip(start.items(), scales or [1.0] * len(asked), strict=True)
    return Factors(
        {key: (t.double() + sent.tensors[key].double() * s).to(t.dtype) for (key, t), s in each}
    )


def _bfloat16(moved: Tensor, coins: torch.Generator) -> Tensor:
    """The upper half of a float32, one more with the probability that the lower half stands for."""
    exact = moved.float()
    low = torch.randint(1 << 16, exact.shape, generator=coins, dtype=torch.int32)
    rounded = ((exact.view(torch.int32) + low) & -(1 << 16)).view(torch.float32)
    return torch.where(exact.isfinite(), rounded, exact).bfloat16()


def _int8(moved: Tensor, scale: float, coins: torch.Generator) -> Tensor:
    """Whole numbers of scales; the server refuses a scale that is not finite."""
    up = torch.rand(moved.shape, generator=coins, dtype=torch.float64)
    levels = (moved / (scale or 1.0) + up).floor()
    return levels.nan_to_num().clamp(-_LEVELS, _LEVELS).to(torch.int8)


def _scale(moved: Tensor) -> float:
    """The smallest float32 of which the largest number is at most 127; 0 if nothing moved."""
    largest = moved.abs().max().item() if moved.numel() else 0.0
    if largest == 0 or not math.isfinite(largest):
        return largest
    near = torch.tensor(largest / _LEVELS, dtype=torch.float32)
    above = torch.nextafter(near, torch.tensor(math.inf))
    return (near if near.item() * _LEVELS >= largest else above).item()


def _scales(text: str, count: int) -> Sequence[float]:
    if len(text) != 2 * _SCALE.size * count:
        raise ValueError("there is not one scale for each tensor")
    return [scale for (scale,) in _SCALE.iter_unpack(bytes.fromhex(text))]
