"""Cures: what would keep records apart in a model that mixes them; each is tried before named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from silotune.privacy.choice import Unit

Check = Callable[..., bool]
"""Whether all would be well with another ``longest``, ``unit`` or ``micro_batch``."""

SHORTEST = 8
"""Tokens below which no cure by length is looked for: nobody has records so short."""


def cures(model: nn.Module, well: Check, longest: int, micro_batch: int, unit: Unit) -> list[str]:
    """Settings under which the gradient check passes, in words; one that always does at the end.

    Args:
        model: that mixes records.
        well: makes the check under other settings.
        longest: tokens of a record.
        micro_batch: records that go through the model at once.
        unit: what is hidden.
    """
    found = list(_found(model, well, longest, micro_batch, unit))
    return [*found, "take another model, or unit: none"]


def _found(
    model: nn.Module, well: Check, longest: int, micro_batch: int, unit: Unit
) -> Iterator[str]:
    if context := _context(well, longest):
        yield f"set max_length: {context} or less (to which this model keeps records apart)"
    with _eager(model) as changed:
        if changed and well():
            yield 'load the model with attn_implementation="eager"'
    if unit == "example" and micro_batch > 1 and well(micro_batch=1):
        yield "set micro_batch_size: 1, at the price of time"
    if unit == "example" and well(unit="client"):
        yield "take unit: client"


def _context(well: Check, longest: int) -> int:
    """The largest number of tokens up to which records keep apart; 0 if there is none."""
    low, high = SHORTEST, longest
    if low >= high or not well(longest=low):
        return 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if well(longest=middle) else (low, middle)
    return low


@contextmanager
def _eager(model: Any) -> Iterator[bool]:
    """With plain attention, if the model has that and another one."""
    inner = getattr(model, "encoder", model)  # under a classifier of ours
    used = getattr(getattr(inner, "config", None), "_attn_implementation", "eager")
    choose = getattr(inner, "set_attn_implementation", None)
    if used == "eager" or choose is None:
        yield False
        return
    try:
        choose("eager")
    except (ValueError, AttributeError):  # it has none
        yield False
        return
    try:
        yield True
    finally:
        choose(used)
