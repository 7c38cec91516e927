"""Batches of any shape that a ``collate_fn`` makes: nested mappings and sequences of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def mapped(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nest with other tensors; whatever is no tensor stays."""
    return mapped_by_name(batch, lambda _, tensor: change(tensor))


def mapped_by_name(batch: Any, change: Callable[[str, Tensor], Tensor], name: str = "") -> Any:
    """The same, where the last key above a tensor is told."""
    if isinstance(batch, Tensor):
        return change(name, batch)
    if isinstance(batch, Mapping):
        return {key: mapped_by_name(part, change, str(key)) for key, part in batch.items()}
    if isinstance(batch, list | tuple):
        return [mapped_by_name(part, change, name) for part in batch]
    return batch


def moved(batch: Any, device: torch.device) -> Any:
    """On a device; a nest that is there already is handed on as it is."""
    if all(t.device == device for _, t in named(batch)):
        return batch
    if hasattr(batch, "to"):
        return batch.to(device)
    return mapped(batch, lambda t: t.to(device))


def named(batch: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor with the last key above it."""
    if isinstance(batch, Tensor):
        yield name, batch
    elif isinstance(batch, Mapping):
        for key, part in batch.items():
            yield from named(part, str(key))
    elif isinstance(batch, list | tuple):
        for part in batch:
            yield from named(part, name)
