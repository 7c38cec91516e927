"""Fitting: how many records go through a model at once, by the memory that one and two take.

They are made up, as long as records may be (``max_length``, which is public), and trained on as the
mechanism would, so that what a step takes says nothing of records. What is free does, by as much as
is held already: where labels are counted, or a caller has them, records are. What a step takes
grows evenly with its records, so that two steps tell all others.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from silotune.core import Batch, ImageInput, human_bytes
from silotune.core.tensor_memory import free_bytes, peak_bytes
from silotune.engine.batches import to_device
from silotune.engine.gradient_check import buffers_restored
from silotune.privacy.mechanisms.clipping import accumulate

from .build import BuiltModel
from .terms import Terms

SHARE = 0.7
"""Of the memory that is free, what records may take: optimisers and noise are to have some."""

MOST = 128
"""Records beyond which nothing is gained by more."""

GRID = 2.0**-20
"""As usual noise lies on, so that sums are as wide."""


def fitted(model: BuiltModel, terms: Terms) -> BuiltModel:
    """The model with as many records at once as fit: a power of two, so that little moves it.

    Raises:
        ValueError: if not even one fits, with what helps.
    """
    if model.trainer.micro_batch == 1:  # its records may not meet
        return replace(model, fits=1)
    one, two = (step_bytes(model, terms, records) for records in (1, 2))
    free = free_bytes(model.trainer.adapted.device)
    number = fitting(one, two, free)
    if not number:
        raise ValueError(
            f"micro_batch_size: a step on one record of max_length takes {human_bytes(one)}, more "
            f"than {SHARE:.0%} of the {human_bytes(free)} that are free; lower max_length or r, "
            "take fewer target_modules, or set gradient_checkpointing: non-reentrant"
        )
    told = (
        f"micro_batch_size: auto is {number} here; one of the longest records takes "
        f"{human_bytes(one)}, each further one {human_bytes(two - one)}, and {human_bytes(free)} "
        "are free"
    )
    return replace(
        model,
        trainer=replace(model.trainer, micro_batch=number),
        loaded=replace(model.loaded, notices=(*model.loaded.notices, told)),
        fits=number,
    )


def fitting(one: int, two: int, free: int) -> int:
    """The largest power of two of records that fit, ``MOST`` at most; 0 if not one does.

    Args:
        one: bytes that a step on one record takes.
        two: on two.
        free: bytes, of which it may take ``SHARE``.
    """
    room = int(SHARE * free) - one
    if room < 0:
        return 0
    fit = 1 + room // max(two - one, 1)
    return min(MOST, 1 << (fit.bit_length() - 1))


def step_bytes(model: BuiltModel, terms: Terms, records: int) -> int:
    """The most bytes that gradients of so many of the longest records take at once."""
    adapted = model.trainer.adapted
    batch = to_device(_longest(model, terms, records), adapted.device)
    trained = adapted.train_only(model.axes.trained(), model.fixed)
    adapted.model.train()
    step = partial(_step, model, batch, apart=terms.unit == "example")
    with buffers_restored(adapted):
        if adapted.device.type == "cuda":  # what is loaded late stays, and is no part of a step
            step()
        found = peak_bytes(step, adapted.device)
    for parameter in trained.values():
        parameter.grad = None
    return found


def _step(model: BuiltModel, batch: Batch, *, apart: bool) -> None:
    sink, losses = model.trainer.adapted.sink, model.trainer.losses
    if apart:
        accumulate(sink, losses, [batch], 1.0, GRID)
        return
    with sink.summed():
        torch.autograd.backward(losses(batch).sum())


def _longest(model: BuiltModel, terms: Terms, records: int) -> Batch:
    inputs = model.loaded.inputs
    length = 1 if isinstance(inputs, ImageInput) else terms.objective.max_length
    return terms.objective.synthetic(inputs, [length] * records, terms.seed)
