"""Batches cut to what fits through the model at once, and moved to where it computes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from silotune.adapters import AdaptedModel
from silotune.core import Batch
from silotune.core.masks import are_of_tokens, mask_of, masks_of

PASS_TOKENS = {"cpu": 40, "cuda": 4000}
"""What one more pass through a wide model costs, in tokens. On a CPU: measured, 33 at 384 units and
39 at 768 (docs/log.md). On a GPU: an estimate from the launches of a pass."""

NARROW = 8000
"""The same, in tokens times units, where a CPU's products are so small that it waits for their
launches: measured, 62 tokens at 128 units and 283 at 32."""


def pass_tokens(adapted: AdaptedModel) -> int:
    """What one more pass through a model costs, in tokens.

    Its width and the device's kind alone decide, never a clock, so that the same batch is cut
    alike everywhere. A model whose ``config`` tells no width counts as wide.
    """
    device = adapted.device.type
    wide = PASS_TOKENS.get(device, PASS_TOKENS["cuda"])
    units = getattr(getattr(adapted.model, "config", None), "hidden_size", None)
    return max(wide, NARROW // units) if device == "cpu" and units else wide


def microbatches(
    indices: Sequence[int], lengths: Sequence[int], size: int, each: int
) -> Iterator[Sequence[int]]:
    """Cut a batch into parts of at most ``size`` records of similar length, where it is cheapest.

    A part costs its records times the longest of them, and what a pass does. Of all cuts of the
    records sorted by length, the cheapest is found: best[j], for the first j of them, is the least
    best[i] + cost of i to j.

    Args:
        indices: of the batch's records.
        lengths: of all records, in tokens.
        size: records that may go through the model at once.
        each: tokens that a pass costs (``pass_tokens``).
    """
    ordered = sorted(indices, key=lambda i: (lengths[i], i))
    tokens = np.array([lengths[i] for i in ordered])
    best, begin = np.zeros(len(ordered) + 1), np.zeros(len(ordered) + 1, dtype=np.int64)
    for end in range(1, len(ordered) + 1):
        first = max(0, end - size)
        records = np.arange(end - first, 0, -1)
        costs = best[first:end] + each + records * tokens[end - 1]
        begin[end] = first + costs.argmin()
        best[end] = costs.min()
    cuts = [len(ordered)]
    while cuts[-1]:
        cuts.append(int(begin[cuts[-1]]))
    return (ordered[i:j] for j, i in reversed(list(pairwise(cuts))))


def cost(part: Sequence[int], lengths: Sequence[int], each: int) -> int:
    """Of one part of ``microbatches``, in tokens."""
    return each + len(part) * max(lengths[i] for i in part)


def side_by_side(batches: Sequence[Batch], padding: Mapping[str, int]) -> Batch:
    """The records of several batches as one; where one is narrower, columns are added on the right.

    Args:
        batches: with the same parts each.
        padding: what fills up a part of a batch, by name; 0 fills those that are not there.
    """
    if len(batches) == 1:
        return batches[0]
    whole = {}
    for name in batches[0]:
        parts = [batch[name] for batch in batches]
        if parts[0].dim() > 1:
            widest = max(part.shape[1] for part in parts)
            parts = [_widened(part, widest, padding.get(name, 0)) for part in parts]
        whole[name] = torch.cat(parts)
    return whole


def taken(batch: Batch, indices: Sequence[int]) -> Batch:
    """Some records of a batch, in this order, without the columns that are padding in all of them.

    So a record that is taken alone is unpadded.
    """
    rows = torch.as_tensor(indices, device=batch["labels"].device)
    return unpadded({name: tensor[rows] for name, tensor in batch.items()})


def unpadded(batch: Batch) -> Batch:
    """Cut the columns, left and right, that are padding in every record, row by row of each."""
    kept = {name: filled(batch[name]) for name in masks_of(batch)}
    return {name: _cut(name, t, batch, kept) for name, t in batch.items()}


def _cut(name: str, t: Tensor, batch: Batch, kept: Mapping[str, slice | None]) -> Tensor:
    if name == "labels" and not are_of_tokens(t):
        return t
    mask = mask_of(name, batch)
    columns = kept.get(mask)
    if columns is None or t.dim() < 2 or t.shape[1] != batch[mask].shape[1]:
        return t
    return t[:, columns]


def filled(mask: Tensor) -> slice | None:
    """The columns of a mask (n, T) that are more than padding; None if that cannot be told."""
    if mask.dim() != 2 or not mask.any():
        return None
    columns = mask.bool().any(dim=0).nonzero().flatten()
    return slice(int(columns[0]), int(columns[-1]) + 1)


def lengths(batch: Batch) -> list[int]:
    """Tokens of each record, all of its rows together; 1 where records have no mask."""
    masks = [batch[name] for name in masks_of(batch) if batch[name].dim() == 2]
    if not masks:
        return [1] * len(batch["labels"])
    return [sum(own) for own in zip(*(m.bool().sum(dim=1).tolist() for m in masks), strict=True)]


def _widened(part: Tensor, width: int, value: int) -> Tensor:
    """(n, T, ...) with so many columns."""
    more = width - part.shape[1]
    return part if not more else F.pad(part, [0, 0] * (part.dim() - 2) + [0, more], value=value)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move every tensor."""
    return {name: tensor.to(device) for name, tensor in batch.items()}
