"""Dataset: a silo's records as a model reads them."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeGuard

from torch import Tensor

Batch = Mapping[str, Tensor]
"""Model inputs and ``labels``; the first dimension of every tensor counts examples."""


class ClientDataset(Protocol):
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


class Joinable(ClientDataset, Protocol):
    """Records that may stand in a batch beside those of other clients, filled up on the right."""

    @property
    def padding(self) -> Mapping[str, int]:
        """What fills up a record in a batch, by part; 0 does where a part is not there."""
        ...


def joinable(records: ClientDataset) -> TypeGuard[Joinable]:
    """Whether records say how they are padded; a view of others does where those do."""
    return hasattr(records, "padding")


def digest(examples: ClientDataset) -> str:
    """SHA-256 of all records in their order: of what the model reads of them."""
    whole = hashlib.sha256()
    for i in range(len(examples.lengths)):
        for name, tensor in sorted(examples.batch([i]).items()):
            whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
            whole.update(tensor.contiguous().numpy().tobytes())
    return whole.hexdigest()
