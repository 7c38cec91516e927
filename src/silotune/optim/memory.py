"""What a local optimiser remembers, taken out and put back: tensors and numbers by name.

All of it is ``state[parameter]``, as in every optimiser of torch's. What one keeps anywhere else is
not carried.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from silotune.core import Factors, Key

Number = int | float | bool | None
Memory = Mapping[Key, Mapping[str, Tensor | Number]]

MARK = "#"
"""Between the name of a tensor and that of what is remembered with it."""


def remembered(optimizer: torch.optim.Optimizer, tensors: Mapping[Key, nn.Parameter]) -> Memory:
    """What an optimiser knows of every tensor that it has moved.

    Args:
        optimizer: over ``tensors``.
        tensors: all of the model's.

    Raises:
        ValueError: if it keeps something else than tensors and numbers.
    """
    found = {key: dict(optimizer.state[p]) for key, p in tensors.items() if p in optimizer.state}
    for key, memory in found.items():
        for name, value in memory.items():
            if not isinstance(value, Tensor | Number):
                raise ValueError(
                    f"local_state: {type(optimizer).__name__} remembers {name} of {key}, a "
                    f"{type(value).__name__}, and only tensors and numbers can be carried; set it "
                    "to fresh"
                )
    return found


def remind(
    optimizer: torch.optim.Optimizer, tensors: Mapping[Key, nn.Parameter], memory: Memory
) -> None:
    """Let an optimiser go on from what one of its kind remembered.

    Types stay as they were. What torch counts steps in stays on the CPU, as torch wants it.
    """
    for key, slots in memory.items():
        p = tensors[key]
        optimizer.state[p] = {name: _own(name, value, p) for name, value in slots.items()}


def apart(memory: Memory) -> tuple[Factors, list[tuple[Key, str, Number]]]:
    """Its tensors, each under a name of its own, and its numbers."""
    tensors, numbers = {}, []
    for key, slots in memory.items():
        for name, value in slots.items():
            if isinstance(value, Tensor):
                tensors[key._replace(name=f"{key.name}{MARK}{name}")] = value
            else:
                numbers.append((key, name, value))
    return Factors(tensors), numbers


def together(tensors: Factors, numbers: list[tuple[Key, str, Number]]) -> Memory:
    """The inverse of ``apart``."""
    memory: dict[Key, dict[str, Tensor | Number]] = {}
    for key, tensor in tensors.items():
        of, _, name = key.name.rpartition(MARK)
        memory.setdefault(key._replace(name=of), {})[name] = tensor
    for key, name, value in numbers:
        memory.setdefault(Key.of(key), {})[name] = value
    return memory


def _own(name: str, value: Tensor | Number, p: Tensor) -> Tensor | Number:
    """A copy beside the parameter."""
    if not isinstance(value, Tensor):
        return value
    return value.clone() if name == "step" else value.to(p.device, copy=True)
