"""Examples: a silo's records as a model reads them."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

Batch = Mapping[str, Tensor]
"""Model inputs and ``labels``; the first dimension of every tensor counts examples."""


class Examples(Protocol):
    """Records that can be batched in any combination.

    ``lengths`` is the cost of each record (tokens; 1 for an image) and orders micro-batches.
    """

    @property
    def lengths(self) -> Sequence[int]:
        """One cost per record; its length is the number of records."""
        ...

    def batch(self, indices: Sequence[int]) -> Batch:
        """The records at ``indices`` (one or more), padded to the longest among them."""
        ...
