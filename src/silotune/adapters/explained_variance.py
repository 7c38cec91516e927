"""Directions in which the inputs of layers vary most: the start of EVA.

EVA (Paischer et al. 2024, arXiv 2410.07170) begins A at the leading right singular vectors of what
a layer reads, B at zero. The paper finds them batch by batch; here sums of products are kept, whose
eigenvectors are those of all that was read. As in the authors' code the mean is taken off first.

Shapes: in = features of a site, r rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from silotune.linalg import eigh


@dataclass(eq=False)
class Inputs:
    """Sums over the positions that one layer has read, float64 on the CPU.

    Attributes:
        count: positions.
        total: (in,) their sum.
        products: (in, in) sum of x x^T.
    """

    count: int
    total: Tensor
    products: Tensor

    @staticmethod
    def none(features: int) -> Inputs:
        """Of a layer that has read nothing."""
        double = torch.float64
        return Inputs(
            0, torch.zeros(features, dtype=double), torch.zeros(features, features).double()
        )

    def add(self, x: Tensor) -> None:
        """Add what a layer reads, (..., in)."""
        rows = x.detach().double().cpu().reshape(-1, len(self.total))
        self.count += len(rows)
        self.total += rows.sum(0)
        self.products += rows.T @ rows

    def directions(self, rank: int) -> Directions:
        """The ``rank`` leading ones.

        Raises:
            NumericalError: if what was read is not finite.
            ValueError: if it varies in fewer directions.
        """
        mean = self.total / max(self.count, 1)
        variance = self.products - self.count * torch.outer(mean, mean)
        values, vectors = eigh(variance)
        values, vectors = values.flip(0).clamp(min=0), vectors.T.flip(0)
        noise = len(values) * torch.finfo(torch.float32).eps * values[0]
        found = int((values > noise).sum())
        if rank > found:
            raise ValueError(
                f"what it reads varies in {found} directions, fewer than r = {rank}; give more "
                "texts"
            )
        a = vectors[:rank]
        sign = a.gather(1, a.abs().argmax(dim=1, keepdim=True)).sign()
        return Directions((a * sign).float(), float(values[:rank].sum() / values.sum()))


@dataclass(frozen=True, eq=False)
class Directions:
    """Where a layer's inputs vary most.

    Attributes:
        a: (r, in) orthonormal rows, the strongest first; of each the largest entry is positive.
        explained: the share of the variance that lies in them.
    """

    a: Tensor
    explained: float


@contextmanager
def watching(
    layers: Mapping[str, nn.Module], widths: Mapping[str, int]
) -> Iterator[dict[str, Inputs]]:
    """Sums of what layers read while this is open.

    Args:
        layers: site -> module.
        widths: site -> numbers that it reads.
    """
    sums = {name: Inputs.none(widths[name]) for name in layers}

    def reader(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, inputs: sums[name].add(inputs[0])

    hooks = [layer.register_forward_pre_hook(reader(name)) for name, layer in layers.items()]
    try:
        yield sums
    finally:
        for hook in hooks:
            hook.remove()
