"""What makes a model that was just read a frozen function: nothing in it is left to chance.

These functions change the model (or tokenizer) that they are given; ``load_model`` calls each
once, before anyone else sees it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from textwrap import shorten
from types import MethodType
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from silotune.core import Site
from silotune.core.inputs import ImageInput, TextInput
from silotune.objectives import Task

Checkpointing = Literal["none", "reentrant", "non-reentrant"]

_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def missing_weights(
    model: nn.Module, missing: Collection[str], *, may_lack_heads: bool
) -> tuple[frozenset[str], tuple[str, ...]]:
    """Give every tensor that the checkpoint lacks a value that does not depend on chance.

    Args:
        model: its linear maps and normalisations may be changed.
        missing: full names of tensors.
        may_lack_heads: whether linear maps outside the numbered layers may be absent.

    Returns:
        Names of the absent linear maps, now zero, and a notice for each normalisation.

    Raises:
        ValueError: if anything else is missing: such a model would be partly random.
    """
    absent, notices = set(), []
    for name in sorted({key.rpartition(".")[0] for key in missing}):
        module = model.get_submodule(name)
        if isinstance(module, _NORMS):
            module.reset_parameters()
            notices.append(f"{name} is not in the checkpoint; it begins as the identity")
        elif isinstance(module, nn.Linear) and may_lack_heads and not _in_a_layer(name):
            _zero(module)
            absent.add(name)
        else:
            raise ValueError(
                f"model: the checkpoint has no weights that fit {name or 'the model'},"
                f" and only heads may begin anew; is it a checkpoint of another kind of model?"
            )
    return frozenset(absent), tuple(notices)


def heads(model: Any, absent: Collection[str]) -> tuple[Site, ...]:
    """The linear maps outside the base model, and the absent ones inside (BERT's pooler).

    Raises:
        ValueError: if the model's classifier is not made of linear maps.
    """
    base = base_name(model)
    found = tuple(
        Site(name, module, module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and (name in absent or not name.startswith(f"{base}."))
    )
    if not found:
        raise ValueError(
            f"model: {type(model).__name__} has no linear classifier apart from its base model"
        )
    return found


def base_name(model: Any) -> str:
    """The child that is all but the classifier: as its class calls it, or else the largest."""
    children: dict[str, nn.Module] = dict(model.named_children())
    if model.base_model_prefix in children:
        return str(model.base_model_prefix)
    sizes = {n: sum(p.numel() for p in child.parameters()) for n, child in children.items()}
    return max(sizes, key=sizes.__getitem__)


def batch_norms(model: nn.Module) -> tuple[str, ...]:
    """Let statistics of batches stay those of the checkpoint, in training as well.

    They are a part of the frozen base; as they were, they also keep records apart.

    Returns:
        A notice if there are any.
    """
    found = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    for module in found:
        module.eval()
        vars(module)["train"] = MethodType(_stay, module)
    layers = f"{len(found)} layers of batch normalisation"
    return (f"{layers} keep the statistics of the checkpoint, in training too",) if found else ()


def dropout(model: nn.Module) -> None:
    """Switch every dropout off: modules, and rates that a module hands to a function."""
    for module in model.modules():
        if isinstance(module, _DROPOUTS):
            module.p = 0.0
        for name, value in vars(module).items():
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)


@torch.no_grad()
def causality(model: Any, task: Task) -> None:
    """See that a token does not change what is predicted before it.

    Raises:
        ValueError: if it does: an encoder (BERT) would "predict" tokens by looking at them; or if
            nothing says what a decoder begins with.
    """
    read: dict[str, Any] = {}
    name = "input_ids"
    if task.architecture == "encoder-decoder":
        read, name = {"input_ids": torch.tensor([[3, 4]])}, "decoder_input_ids"
        if getattr(model.config, "decoder_start_token_id", None) is None:
            raise ValueError(
                f"model: {type(model).__name__} does not say what its decoder begins with; set "
                "decoder_start_token_id in its config.json"
            )
    texts = (torch.tensor([[3, i]]) for i in (3, 4))
    first, last = (model(**read, **{name: text}).logits[:, 0] for text in texts)
    if not torch.allclose(first, last, rtol=1e-3, atol=1e-4):
        raise ValueError(
            f"task: {type(model).__name__} looks at the tokens that {task.name} asks it to "
            f"predict; take {task.families}"
        )


def checkpointing(model: Any, mode: Checkpointing) -> None:
    """Let a transformers model compute activations again in the backward pass.

    Raises:
        ValueError: if it cannot.
    """
    if mode == "none":
        return
    if not model.supports_gradient_checkpointing:
        raise ValueError(
            f"gradient_checkpointing: {type(model).__name__} cannot do it; set it to none"
        )
    model.gradient_checkpointing_enable({"use_reentrant": mode == "reentrant"})
    if mode == "reentrant":  # which computes no gradient unless one of its inputs asks for one
        model.enable_input_require_grads()


def padding(model: Any, tokenizer: Any) -> tuple[str, ...]:
    """Pad on the right, where no mask can shift positions, with a token the model knows.

    Returns:
        A notice if the end token has to serve.

    Raises:
        ValueError: if there is no such token.
    """
    tokenizer.padding_side = "right"
    notices: tuple[str, ...] = ()
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ValueError("model: the tokenizer has no padding and no end token")
        tokenizer.pad_token = tokenizer.eos_token
        notices = (f"the tokenizer has no padding token; its end token {tokenizer.eos_token} pads",)
    model.config.pad_token_id = tokenizer.pad_token_id
    return notices


def text_input(model: Any, tokenizer: Any, num_labels: int) -> TextInput:
    """What a text model reads.

    Raises:
        ValueError: if the tokenizer knows no tokens, or some that the model does not.
    """
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ValueError("model: the model has no tokenizer, or one without words")
    _refuse_strange_tokens(tokenizer, _rows(model))
    return TextInput(
        vocabulary=len(tokenizer),
        special=frozenset(tokenizer.all_special_ids),
        pad=tokenizer.pad_token_id,
        num_labels=num_labels,
    )


def image_input(processor: Any, num_labels: int) -> ImageInput:
    """What an image model reads: the shape that its processor makes, of wide and of high images.

    Raises:
        ValueError: if these are not alike.
    """
    wide, high = (_made_of(processor, *size) for size in ((96, 144), (144, 96)))
    if wide != high or len(wide) != 3:
        told = " or ".join(" x ".join(map(str, shape)) for shape in (wide, high))
        raise ValueError(
            f"model: its image processor makes {told} of wide and high images, which go into no "
            "batch; set size to {height, width}, or do_center_crop, in its "
            "preprocessor_config.json"
        )
    return ImageInput(shape=wide, num_labels=num_labels)


def digest(model: nn.Module, without: Collection[str]) -> str:
    """SHA-256 over names, shapes, types and bytes of the weights, but those of some modules."""
    h = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name.rpartition(".")[0] not in without:
            h.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype}\n".encode())
            h.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return h.hexdigest()


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    """In place of ``train``: evaluation mode goes on."""
    return module


def _rows(model: Any) -> int:
    """How many tokens the model has numbers for, at its input and its output."""
    rows = int(model.get_input_embeddings().num_embeddings)
    output = model.get_output_embeddings()
    return min(rows, getattr(output, "out_features", rows))


def _refuse_strange_tokens(tokenizer: Any, rows: int) -> None:
    """Ids may have gaps, so that their number tells nothing; tokens may have been added."""
    strange = [token for token, i in tokenizer.get_vocab().items() if i >= rows]
    if not strange:
        return
    added = tokenizer.get_added_vocab()
    kind = "tokens that were added" if all(t in added for t in strange) else "tokens"
    last = max(tokenizer.get_vocab().values())
    raise ValueError(
        f"model: the tokenizer has {len(strange)} {kind} ({', '.join(sorted(strange)[:3])}) beyond "
        f"the model's {rows} (ids up to {last}); give the tokenizer that belongs to it, or let the "
        f"model have them, by model.resize_token_embeddings({last + 1}), and save both"
    )


def _made_of(processor: Any, height: int, width: int) -> tuple[int, ...]:
    """(c, h, w) of what becomes of an image."""
    blank = np.zeros((height, width, 3), dtype=np.uint8)
    try:
        pixels = processor(images=[blank], return_tensors="pt")["pixel_values"]
    except Exception as error:  # each processor has its own
        raise ValueError(
            f"model: its image processor reads no RGB image: {shorten(str(error), 200)}"
        ) from error
    return tuple(pixels.shape[1:])


@torch.no_grad()
def _zero(module: nn.Linear) -> None:
    for parameter in module.parameters():
        parameter.zero_()


def _in_a_layer(name: str) -> bool:
    return any(part.isdigit() for part in name.split("."))
