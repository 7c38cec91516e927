"""Limits: whether a model can read what its tokenizer or image processor makes, asked of the model.

Tables of positions differ from one architecture to the next, and so do what counts into them and
what happens beyond their end. So made-up records go through the embeddings and the first layer, on
the CPU, where a place beyond a table is an error in words and no fault of the device.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn

from silotune.core.inputs import ImageInput
from silotune.core.masks import DECODER
from silotune.core.packed_linear import PackedLinear

from .load import Loaded

_REFUSALS = (IndexError, RuntimeError, ValueError, TypeError, AssertionError)
"""How models say that they cannot read something."""

_SHORT = 4
"""Tokens that every model reads."""


class _Enough(Exception):
    """The first layer is done."""


def check_limits(
    loaded: Loaded, max_length: int, *, pairs: bool, max_target_length: int = 0
) -> None:
    """See that a model reads records of every length or size that it will be given.

    Args:
        loaded: on the CPU, as it was read.
        max_length: tokens of the longest text; of no meaning for images.
        pairs: whether texts come in pairs, in one row of tokens.
        max_target_length: tokens of the longest text that a decoder beside an encoder writes.

    Raises:
        ValueError: naming the field, with the largest number that is possible.
    """
    twin = _twin(loaded.model)
    if isinstance(loaded.inputs, ImageInput):
        return _check_image(twin, loaded.inputs)
    _check_kinds(loaded, twin, pairs=pairs)
    known = int(loaded.tokenizer.model_max_length)  # type: ignore[union-attr]
    for field, asked, row in (
        ("max_length", max_length, ""),
        ("max_target_length", max_target_length, DECODER),
    ):
        longest = _longest(loaded, twin, min(asked, known), row)
        if longest < asked:
            does = "writes" if row else "reads"
            raise ValueError(
                f"{field}: {asked} is more than the {longest} tokens that this model {does}; "
                f"set it to {longest} or less"
            )
    return None


def _longest(loaded: Loaded, twin: nn.Module, most: int, row: str) -> int:
    """Tokens of the longest text that a model reads, or its decoder does, ``most`` at most."""
    inputs = loaded.inputs
    assert not isinstance(inputs, ImageInput)
    token = next(i for i in range(inputs.vocabulary) if i not in inputs.special)

    def reads(model: nn.Module, length: int) -> bool:
        ids, short = torch.full((1, length), token), torch.full((1, _SHORT), token)
        if not _is_pair(model):
            read = {"input_ids": ids}
        elif row:
            read = {"input_ids": short, "decoder_input_ids": ids}
        else:
            read = {"input_ids": ids, "decoder_input_ids": short}
        read["attention_mask"] = torch.ones_like(read["input_ids"])
        return _failure(model, read) is None

    if most <= _SHORT or reads(twin, most):
        return most
    return _last(lambda length: reads(_twin(loaded.model), length), _SHORT, most)


def _check_kinds(loaded: Loaded, twin: nn.Module, *, pairs: bool) -> None:
    """That the model takes every column of a text, and every kind of token in it."""
    tokenizer: Any = loaded.tokenizer
    made = tokenizer(*["a"] * (2 if pairs else 1), return_tensors="pt")
    if not made["input_ids"].numel():
        return
    known = ("input_ids", "attention_mask", "token_type_ids")
    read = {name: made[name] for name in known if name in made}
    if _is_pair(twin):
        read["decoder_input_ids"] = made["input_ids"]
    wrong = _failure(twin, read)
    if wrong is not None:
        what = "pairs of texts" if pairs else "texts"
        raise ValueError(
            f"model: it cannot read what its tokenizer makes of {what} ({_brief(wrong)}); give the "
            "tokenizer that belongs to it"
        )


def _check_image(twin: nn.Module, inputs: ImageInput) -> None:
    wrong = _failure(twin, {"pixel_values": torch.zeros(1, *inputs.shape)})
    if wrong is not None:
        made = " x ".join(map(str, inputs.shape))
        raise ValueError(
            f"model: its image processor makes images of {made}, which it cannot read "
            f"({_brief(wrong)}); set their size in its preprocessor_config.json"
        )


def _is_pair(model: Any) -> bool:
    """Whether a decoder reads beside an encoder."""
    return bool(getattr(model.config, "is_encoder_decoder", False))


def _twin(model: nn.Module) -> nn.Module:
    """A model of the same weights that ends after its first layer.

    The model itself sees nothing: what it keeps of what it read is for the isolation check to find.
    """
    kept: dict[int, Any] = {id(p): p for p in model.parameters()}
    kept |= {id(m): m for m in model.modules() if isinstance(m, PackedLinear)}
    twin = copy.deepcopy(model, kept)
    stacks = [m for m in twin.modules() if isinstance(m, nn.ModuleList) and len(m)]
    if stacks:
        max(stacks, key=_size)[0].register_forward_hook(_stop)
    return twin


@torch.no_grad()
def _failure(twin: nn.Module, inputs: Mapping[str, Tensor]) -> Exception | None:
    """What goes wrong in the embeddings or the first layer; None if nothing does."""
    try:
        twin(**inputs)
    except _Enough:
        return None
    except _REFUSALS as error:
        return error
    return None


def _stop(*_: object) -> None:
    raise _Enough


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _last(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The largest number at which ``holds``, which does at ``low`` and no more at ``high``."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _brief(error: Exception) -> str:
    return shorten(str(error), 120, placeholder=" ...")
