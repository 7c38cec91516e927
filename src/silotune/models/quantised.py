"""Bases quantised by bitsandbytes: its storage is kept, its layers are not.

bitsandbytes' layers change their own weights when they are first scored, and one of them rounds
what it reads by the whole batch; ``PackedLinear`` computes with the same codes and does neither.

Shapes: out, in.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor, nn

from silotune.core.packed_linear import PackedLinear

Quantization = Literal["none", "8bit", "4bit"]

_EXTRA = "silotune[quantised]"


@dataclass(frozen=True)
class EightBit:
    """LLM.int8 (arXiv 2208.07339): int8 codes (out, in), one scale a row (out,)."""

    def unpacked(self, codes: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        """``codes scale / 127``."""
        return (codes * (scale / 127.0)[:, None]).to(dtype)


@dataclass(frozen=True)
class FourBit:
    """NF4 or FP4 (QLoRA, arXiv 2305.14314): two codes a byte, one scale a block of a row-major W.

    Scales that are themselves quantised are kept as float32: half a bit a weight.

    Attributes:
        kind: ``nf4`` or ``fp4``.
        block: weights of a block.
        shape: (out, in).
    """

    kind: str
    block: int
    shape: tuple[int, int]

    def unpacked(self, codes: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        """By bitsandbytes' kernel of the device."""
        import bitsandbytes  # noqa: F401  # registers the operator

        found: Tensor = torch.ops.bitsandbytes.dequantize_4bit(
            codes, scale, self.block, self.kind, list(self.shape), dtype
        )
        return found


def require_packages() -> None:
    """See that what reads a quantised base is installed.

    Raises:
        ValueError: with what to install.
    """
    missing = [name for name in ("accelerate", "bitsandbytes") if find_spec(name) is None]
    if missing:
        raise ValueError(
            f"quantization: needs {' and '.join(missing)}: pip install '{_EXTRA}', or set it to "
            "none"
        )


def check_method(config: Any, asked: Quantization) -> bool:
    """Whether a model's own configuration says that it is quantised.

    Raises:
        ValueError: if it is by another program, or something else is asked for.
    """
    own = getattr(config, "quantization_config", None)
    if own is None:
        return False
    told = own if isinstance(own, dict) else own.to_dict()
    method = str(getattr(told.get("quant_method"), "value", told.get("quant_method")))
    if method != "bitsandbytes":
        raise ValueError(
            f"model: is quantised by {method}, and only bitsandbytes is understood; take the model "
            "that it was made from, with quantization: 8bit or 4bit"
        )
    bits = "4bit" if told.get("load_in_4bit") or told.get("_load_in_4bit") else "8bit"
    if asked not in ("none", bits):
        raise ValueError(f"quantization: the model is kept in {bits} already; leave it out")
    return True


def is_bitsandbytes(module: nn.Module) -> bool:
    """Whether it is one of bitsandbytes' linear layers."""
    return bool(_kind(module))


def packed(model: Any, absent: Collection[str] = (), dtype: torch.dtype = torch.float32) -> Any:
    """The model with our maps in the places of bitsandbytes' layers; changed in place.

    A classifier outside the base model, and whatever the checkpoint lacks, become plain maps: they
    train, or are made anew.

    Args:
        model: a transformers model; one that is not quantised stays as it is.
        absent: names of tensors that the checkpoint lacks.
        dtype: of what is dequantised.

    Raises:
        ValueError: if a layer cannot be understood.
    """
    layers = {n: m for n, m in model.named_modules() if _kind(m)}
    if not layers:
        return model
    inside = f"{model.base_model_prefix}."
    has_head = model.base_model is not model and model.get_output_embeddings() is None
    for name, layer in layers.items():
        if f"{name}.weight" in absent:
            bias = layer.bias is not None
            new: nn.Linear = nn.Linear(layer.in_features, layer.out_features, bias, dtype=dtype)
        else:
            new = _packed(name, layer, dtype)
            if has_head and not name.startswith(inside):
                new = new.dense()
        model.set_submodule(name, new)
    _forget(model)
    return model


def _packed(name: str, layer: Any, dtype: torch.dtype) -> PackedLinear:
    shape, bias, weight = (layer.out_features, layer.in_features), layer.bias, layer.weight
    if _kind(layer) == "Linear8bitLt":
        codes = weight.data if weight.CB is None else weight.CB
        scale = layer.state.SCB if weight.SCB is None else weight.SCB
        if scale is None or codes.dtype != torch.int8:
            raise ValueError(f"model: {name} has no numbers in eight bits; save it quantised again")
        return PackedLinear(shape, codes, scale, bias, EightBit(), dtype)
    state = weight.quant_state
    if state is None:
        raise ValueError(f"model: {name} has no numbers in four bits; save it quantised again")
    if getattr(state, "packing_format_for_cpu", False):  # bitsandbytes' way back is not exact
        raise ValueError(
            f"model: {name} was rearranged and rounded by bitsandbytes when it was scored on this "
            "CPU; load the model anew, and score nothing with it before"
        )
    codes = weight.data.contiguous().view(torch.uint8).view(-1, 1)
    packing = FourBit(state.quant_type, state.blocksize, shape)
    return PackedLinear(shape, codes, _scales(state), bias, packing, dtype)


def _scales(state: Any) -> Tensor:
    """One a block, float32."""
    if not state.nested:
        found: Tensor = state.absmax.float()
        return found
    from bitsandbytes.functional import dequantize_blockwise

    nested: Tensor = dequantize_blockwise(state.absmax, state.state2) + state.offset
    return nested.float()


def _kind(module: nn.Module) -> str:
    """The name of bitsandbytes' class of a module; empty for any other."""
    kinds = [kind for kind in type(module).__mro__ if kind.__module__ == "bitsandbytes.nn.modules"]
    names = [kind.__name__ for kind in kinds if kind.__name__ in ("Linear8bitLt", "Linear4bit")]
    return names[0] if names else ""


def _forget(model: Any) -> None:
    """What transformers knows of a quantised model, and would refuse to move or to save it for."""
    for part in (model, model.base_model):
        for flag in ("is_loaded_in_8bit", "is_loaded_in_4bit", "is_quantized"):
            vars(part).pop(flag, None)
        vars(part).pop("hf_quantizer", None)
        vars(part).pop("quantization_method", None)
    if getattr(model.config, "quantization_config", None) is not None:
        del model.config.quantization_config
