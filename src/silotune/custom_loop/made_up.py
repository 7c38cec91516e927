"""Made-up records of the form of somebody's own, and their losses, for the gradient check.

A nest of tensors may hold more than one row of positions a record: what an encoder reads and what a
decoder writes. Each is cut by its own mask, and one without a mask stays as it is.

Shapes: n records, T positions of a row.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from silotune.core import Answers, Batch, generator
from silotune.core.masks import DECODER, MASK, are_of_tokens, mask_of
from silotune.engine.batches import filled

from .nested import mapped, mapped_by_name, named

ASK = (
    "give synthetic=, a batch as collate_fn makes it of made-up records, and losses=, which takes "
    "the model and that batch and gives one loss a record"
)
"""What a user can do where no synthetic input can be made."""

_TARGETS = "labels"
_DECODED = f"{DECODER}input_ids"


class MadeUp:
    """The objective of a gradient check: losses of synthetic records, chosen by their place.

    Args:
        records: a synthetic batch of n records.
        losses: of the model on some of them, (n,).
    """

    metric = "none"

    def __init__(self, records: Any, losses: Callable[[Any, Any], Tensor]) -> None:
        self.records, self.of = records, losses

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """(k,) of the k records whose places are ``batch["labels"]``."""
        places = batch["labels"]
        some = mapped(self.records, lambda t: t[places.to(t.device)])
        return self.of(model, unpadded(some, model))

    def measure(self, model: nn.Module, batch: Batch) -> Answers:
        """Nothing."""
        return Answers()


def made_up(batch: Any, model: nn.Module) -> Any:
    """A batch of the same form with nothing of the records in it but shapes and types.

    Token ids and real numbers are drawn, masks are ones but for the ends of records, no two of
    which are cut alike, and all other whole numbers are 0.

    Args:
        batch: of some records.
        model: tells how many tokens there are.
    """
    embeddings = getattr(model, "get_input_embeddings", lambda: None)()
    vocabulary: int | None = getattr(embeddings, "num_embeddings", None)
    written = {_TARGETS} if _writes(model) else set[str]()

    def fresh(name: str, t: Tensor) -> Tensor:
        g = generator("made up", name, *t.shape)
        if name.endswith("mask"):
            return _cut_ends(t)
        if t.is_floating_point():
            return torch.randn(t.shape, generator=g).to(t)
        ids = name.endswith("ids") and "type" not in name and "position" not in name
        if vocabulary and (ids or name in written):
            return torch.randint(vocabulary, t.shape, generator=g).to(t)
        return torch.zeros_like(t)

    return mapped_by_name(batch, fresh)


def _cut_ends(mask: Tensor) -> Tensor:
    ones = torch.ones_like(mask)
    if mask.dim() == 2:
        width = mask.shape[1]
        for row, cut in zip(ones, (width // 2, 1, width // 3), strict=False):
            row[width - min(cut, width - 1) :] = 0
    return ones


def outputs(model: Any, batch: Any) -> Tensor:
    """(n,) one number of each record: its logits times fixed random ones.

    The inputs are ``batch["inputs"]``, or what of a mapping the model takes, or a sequence's first.

    Raises:
        ValueError: if it cannot be told what the model reads or gives.
    """
    found = _call(model, _inputs(model, batch))
    logits = getattr(found, "logits", found)
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        raise ValueError(f"losses: the model gives no logits, so it cannot be checked; {ASK}")
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if wide.dim() > 2:  # one vector a token: padding says nothing
        mask = dict(_masks(batch)).get(DECODER + MASK if _writes(model) else MASK)
        if mask is not None and mask.shape == wide.shape[:2]:
            wide = wide * mask.to(wide)[(..., *[None] * (wide.dim() - 2))]
        places = torch.arange(wide.shape[1], device=wide.device)
        wide = torch.einsum("nt...,t->n...", wide, torch.cos(places.to(wide.dtype)))
    flat = wide.flatten(1) if wide.dim() > 1 else wide[:, None]
    weights = torch.randn(flat.shape[1], generator=generator("made up", "losses")).to(flat)
    losses: Tensor = flat @ weights / flat.shape[1] ** 0.5
    return losses


def lengths(records: Any) -> list[int]:
    """Tokens of each record, all of its rows together; 1 where nothing tells."""
    number = _number(records)
    own = [mask.bool().sum(dim=1).tolist() for _, mask in _masks(records)]
    return [sum(each) for each in zip(*own, strict=True)] if own else [1] * number


def unpadded(records: Any, model: nn.Module) -> Any:
    """Without the columns that are padding in all of them, row by row of each.

    A mask cuts what lies beside it in a mapping, and what lies where there is none; marks and
    numbers of records are no row, whatever their number.

    Args:
        records: a nest of tensors.
        model: tells whether labels are a row of their own, which a decoder writes.
    """
    parts = {name for name, _ in named(records)}
    if _writes(model) or any(part.startswith(DECODER) for part in parts):
        parts.add(DECODER + MASK)  # what it would cut is not cut by another

    def cut(part: Any, name: str, masks: Mapping[str, Tensor]) -> Any:
        if isinstance(part, Tensor):
            if name == _TARGETS and not are_of_tokens(part):
                return part
            mask = masks.get(mask_of(name, parts))
            columns = None if mask is None else filled(mask)
            fits = mask is not None and part.dim() > 1 and part.shape[1] == mask.shape[1]
            return part[:, columns] if fits and columns is not None else part
        if isinstance(part, Mapping):
            own = {**masks, **{key: t for key, t in part.items() if _is_mask(key, t)}}
            return {key: cut(inner, str(key), own) for key, inner in part.items()}
        if isinstance(part, list | tuple):
            return [cut(inner, name, masks) for inner in part]
        return part

    return cut(records, "", dict(reversed(_masks(records))))


def _masks(records: Any) -> list[tuple[str, Tensor]]:
    """Name and mask (n, T) of each row of positions that has one."""
    return [(name, t) for name, t in named(records) if _is_mask(name, t)]


def _is_mask(name: object, part: Any) -> bool:
    return isinstance(part, Tensor) and part.dim() == 2 and str(name).endswith(MASK)


def _writes(model: nn.Module) -> bool:
    """Whether it is an encoder with a decoder, so that labels are a row that it writes."""
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


def _number(records: Any) -> int:
    """How many records a nest of tensors has."""
    counts = {t.shape[0] if t.dim() else 0 for _, t in named(records)}
    if len(counts) != 1 or min(counts) < 2:
        raise ValueError(
            "collate_fn: every tensor's first dimension must count records, and a synthetic batch "
            f"needs two or more; found {sorted(counts) or 'no tensor'}"
        )
    return counts.pop()


def _inputs(model: nn.Module, batch: Any) -> Any:
    if isinstance(batch, Mapping):
        if "inputs" in batch:
            return batch["inputs"]
        base: Any = getattr(model, "get_base_model", lambda: model)()
        takes = inspect.signature(base.forward).parameters
        read = {k: v for k, v in batch.items() if k in takes and k not in (_TARGETS, "label")}
        if _writes(base) and _TARGETS in batch and _DECODED not in read:
            read[_DECODED] = base.prepare_decoder_input_ids_from_labels(batch[_TARGETS])
        return read
    if isinstance(batch, list | tuple) and batch:
        return batch[0]
    return batch


def _call(model: nn.Module, inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return model(**inputs)
    whole: Any = model
    return whole(*inputs) if isinstance(inputs, list | tuple) else whole(inputs)
