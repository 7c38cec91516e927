"""Batches cut to what fits through the model at once, and moved to where it computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from silotune.core import Batch

MASK = "attention_mask"
"""The part of a batch that is 0 at padding, shape (n, T)."""


def microbatches(
    indices: Sequence[int], lengths: Sequence[int], size: int
) -> Iterator[Sequence[int]]:
    """Cut a batch into parts of at most ``size`` records of similar length: little padding."""
    ordered = sorted(indices, key=lambda i: (lengths[i], i))
    return (ordered[i : i + size] for i in range(0, len(ordered), size))


def taken(batch: Batch, indices: Sequence[int]) -> Batch:
    """Some records of a batch, in this order, without the columns that are padding in all of them.

    So a record that is taken alone is unpadded.
    """
    rows = torch.as_tensor(indices, device=batch["labels"].device)
    return unpadded({name: tensor[rows] for name, tensor in batch.items()})


def unpadded(batch: Batch) -> Batch:
    """Cut the columns, left and right, that are padding in every record."""
    mask = batch.get(MASK)
    kept = None if mask is None else filled(mask)
    if mask is None or kept is None:
        return batch
    width = mask.shape[1]
    return {
        name: t[:, kept] if t.dim() > 1 and t.shape[1] == width else t for name, t in batch.items()
    }


def filled(mask: Tensor) -> slice | None:
    """The columns of a mask (n, T) that are more than padding; None if that cannot be told."""
    if mask.dim() != 2 or not mask.any():
        return None
    columns = mask.bool().any(dim=0).nonzero().flatten()
    return slice(int(columns[0]), int(columns[-1]) + 1)


def lengths(batch: Batch) -> list[int]:
    """Tokens of each record; 1 where records have no mask."""
    mask = batch.get(MASK)
    if mask is None or mask.dim() != 2:
        return [1] * len(batch["labels"])
    return [int(n) for n in mask.bool().sum(dim=1)]


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move every tensor."""
    return {name: tensor.to(device) for name, tensor in batch.items()}
