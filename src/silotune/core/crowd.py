"""Crowd: whose tensors each record of a pass meets, where records of several clients go together.

Simulations alone have such a thing: it needs records of several silos in one process.

Shapes: K clients, n records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from .factors import Key


@dataclass(frozen=True, eq=False)
class Crowd:
    """The clients of one pass, and whose each record is.

    Attributes:
        tensors: (K, *shape) by key; what is not among them is the same for all clients.
        owners: (n,), the place of each record's client, int64.
    """

    tensors: Mapping[Key, Tensor]
    owners: Tensor

    def own(self, key: Key, shared: Tensor) -> Tensor:
        """What every record meets, (n, *shape); where all meet the same, that alone, (*shape).

        Args:
            key: of the tensor.
            shared: what it is where it is the same for all.
        """
        each = self.tensors.get(key)
        return shared if each is None else each.index_select(0, self.owners)
