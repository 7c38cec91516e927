"""What all adapted layers have of the linear module whose place they take."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from silotune.core import Site
from silotune.core.packed_linear import PackedLinear
from silotune.linalg import Matrix


class SiteLayer(nn.Module):
    """A site's base module and what models ask of it. Alone, it is neither folded nor merged.

    Attributes:
        base: the module whose place it takes; never written to.
        transposed: whether the base weight is stored as (in, out).
        site: its name.
        records: where the records of a batch lie in what it reads.
    """

    no_fold: ClassVar[str]
    """Why nothing is folded into its base."""

    no_merge: ClassVar[str]
    """Why it cannot be merged into one weight."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.base = site.module
        self.transposed = site.transposed
        self.site = site.name
        self.records = site.records

    @property
    def weight(self) -> Tensor:
        """The base weight, for models that look at their layers' weights; dequantised."""
        return _weight(self.base)

    def is_plain(self, own: Tensor) -> bool:
        """Whether the base is a matrix of this type, so that a layer can run on the sum of both."""
        return not isinstance(self.base, PackedLinear) and self.weight.dtype == own.dtype

    @property
    def bias(self) -> Tensor | None:
        """The base bias, likewise."""
        return self.base.bias if isinstance(self.base.bias, Tensor) else None

    def fold(self, matrix: Matrix | None) -> None:
        """Nothing.

        Raises:
            ValueError: if there is something to fold.
        """
        if matrix is not None:
            raise ValueError(f"{self.site}: {self.no_fold}")

    def delta(self) -> Tensor:
        """Never.

        Raises:
            ValueError: always, with the reason.
        """
        raise ValueError(f"{self.site}: {self.no_merge}")


def zeros(site: Site, *shape: int) -> nn.Parameter:
    """On the base's device; float32, whatever the base's half precision or quantisation."""
    device = _weight(site.module).device
    return nn.Parameter(torch.zeros(shape, dtype=own_dtype(site), device=device))


def own_dtype(site: Site) -> torch.dtype:
    """Of the tensors beside a site's base."""
    return torch.promote_types(_weight(site.module).dtype, torch.float32)


def row_lengths(site: Site) -> Tensor:
    """L2 norms (out,) of the rows of a site's base weight, in the type of ``own_dtype``."""
    return norms_of_rows(site.weight().detach().to(own_dtype(site)))


def norms_of_rows(matrix: Tensor) -> Tensor:
    """L2 norms (out,) of a matrix (out, in)."""
    norms: Tensor = torch.linalg.vector_norm(matrix, dim=1)
    return norms


def _weight(module: nn.Module) -> Tensor:
    assert isinstance(module.weight, Tensor)
    return module.weight
