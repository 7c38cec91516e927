"""Batches cut to what fits through the model at once, and moved to where it computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from silotune.core import Batch


def microbatches(
    indices: Sequence[int], lengths: Sequence[int], size: int
) -> Iterator[Sequence[int]]:
    """Cut a batch into parts of at most ``size`` records of similar length: little padding."""
    ordered = sorted(indices, key=lambda i: (lengths[i], i))
    return (ordered[i : i + size] for i in range(0, len(ordered), size))


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move every tensor."""
    return {name: tensor.to(device) for name, tensor in batch.items()}
