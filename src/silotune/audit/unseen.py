"""What a layer reads and what returns to it, so that some of its tensors have no gradient.

Shapes: out, in = features of a layer, r rank.
"""

from __future__ import annotations

import torch
from torch import Tensor

from silotune.adapters import DoRALinear
from silotune.core import Factors, Key, Role, generator
from silotune.linalg import pinv


def without(x: Tensor, rows: Tensor) -> Tensor:
    """What is left of x without its parts along the rows; x itself if that is nothing."""
    a, v = rows.double(), x.double()
    rest = v - pinv(a) @ (a @ v)
    return rest.float() if rest.norm() > 1e-3 * v.norm() else x


def beside_lengths(
    layer: DoRALinear, key: Key, factors: Factors, x: Tensor, back: Tensor
) -> tuple[Tensor, Tensor]:
    """What a layer with lengths reads, and what returns, for a gradient in one of its tensors."""
    a, b, m = (factors[Key(key.site, role)].double().cpu() for role in (Role.A, Role.B, Role.M))
    turned = _weight(layer) + layer.scale * b @ a
    stretch = (layer.lengths.double().cpu() + m) / turned.norm(dim=1)
    if key.role is Role.M:
        return without(x, a), (without(back, b.T).double() / stretch).float()
    seen = torch.zeros(len(back), dtype=torch.float64)
    if key.role is Role.A:
        seen[0] = 1.0
        return without(x, torch.cat([a, turned[:1]])), seen.float()
    rows = b.shape[1] + 1  # so many have a combination that B^T makes 0
    seen[:rows] = without(back[:rows], b[:rows].T).double() / stretch[:rows]
    return without(x, turned[:rows]), seen.float()


def seen_by_all(name: str, a: Tensor) -> Tensor:
    """(in,): of which A makes 0, and a row of a weight only by chance."""
    x = torch.randn(a.shape[1], generator=generator("canaries", name))
    return 100.0 * without(x, a)


def signs(layer: DoRALinear, x: Tensor) -> Tensor:
    """Of W x (out,)."""
    return (_weight(layer) @ x.double()).sign().float()


def _weight(layer: DoRALinear) -> Tensor:
    """The base's (out, in), float64 on the CPU."""
    return (layer.weight.T if layer.transposed else layer.weight).detach().double().cpu()
