"""Taking over a PEFT model's pairs: per-example gradients on PEFT's *own* parameters.

The model stays what it is: its modules, their names, and its way of saving, merging and switching
adapters off. Only while per-example gradients are collected do its LoRA layers compute as
``AdaptedLinear`` does, on the same tensors; at all other times the forward pass is PEFT's. So an
optimiser that holds PEFT's parameters trains them, ``peft_model.save_pretrained`` saves them, and
the gradient check compares our gradients with those of PEFT's own layers.

Layers of bitsandbytes become our own with the same numbers, as for ``adapt``: the 8-bit one rounds
a record by what others of the batch are. Nothing can be merged into them; what was saved is loaded
by PEFT beside a base of bitsandbytes' own.

Linear maps under ``modules_to_save`` become per-example heads. Whatever else is trained, or drops
numbers at random, is refused: there is no gradient of a single record to be clipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from silotune.adapters import AdaptedLinear, AdaptedModel
from silotune.adapters.kernels import rows_linear
from silotune.core import Context, Key, PerExampleGradients, Role, Site
from silotune.models import quantised

_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)

_CURES = {
    "lora_magnitude_vector": "DoRA has no gradient by record in a model that is taken over; use "
    "LoraConfig(use_dora=False), or train a federation by method dora",
    "lora_embedding": "pairs beside an embedding have no gradient by record here; leave it out of "
    "target_modules",
    "modules_to_save": "only linear layers have a gradient by record here; leave it out of "
    "modules_to_save, or freeze it with requires_grad_(False)",
    ".bias": "its bias is trained beside the pair; use LoraConfig(bias='none', lora_bias=False)",
}
"""By a part of the parameter's name, why it is refused and what to do."""


def adopt(peft_model: Any) -> AdaptedModel:
    """Let a PEFT model with LoRA leave per-example gradients of all that it trains.

    What is trained is what requires a gradient now: freeze A for FFA-LoRA, say.

    Args:
        peft_model: what ``peft.get_peft_model`` gives, on its device. It is changed in place, but
            computes the same; of a base in 8 bits, without the rounding of what a layer reads.

    Raises:
        ValueError: naming the module and the cure, if something is trained whose gradient by
            record is not computed, or if there is active dropout.
    """
    layers = _lora_layers(peft_model)
    quantised.packed(peft_model.get_base_model())
    name = _adapter_name(peft_model)
    sink = PerExampleGradients()
    tensors: dict[Key, nn.Parameter] = {}
    for path, layer in layers.items():
        tensors |= _take_pair(path, layer, name, sink)
    for path, linear in _heads(peft_model, name):
        tensors |= _take_head(path, linear, sink)
    trained = {key: p for key, p in sorted(tensors.items()) if p.requires_grad}
    _refuse_uncovered(peft_model, trained)
    _refuse_dropout(peft_model)
    if not trained:
        raise ValueError("adopt: nothing in this model requires a gradient")

    def save(folder: Path) -> None:
        peft_model.save_pretrained(folder)

    return AdaptedModel(peft_model, sink, Context(), {}, trained, save)


def _adapter_name(peft_model: Any) -> str:
    active = list(peft_model.active_adapters)
    if len(active) != 1:
        raise ValueError(
            f"adopt: {len(active)} adapters are active ({', '.join(active)}); activate one with "
            "set_adapter"
        )
    return str(active[0])


def _lora_layers(peft_model: Any) -> dict[str, Any]:
    """LoRA layers by name; only PEFT's plain ones are understood.

    Raises:
        ValueError: if there are none, or one is of another kind.
    """
    try:
        from peft import PeftModel
        from peft.tuners.lora.layer import Linear, LoraLayer
        from peft.tuners.tuners_utils import BaseTunerLayer
    except ImportError as error:
        raise ValueError("adopt: needs the package peft; install it") from error
    if not isinstance(peft_model, PeftModel):
        kind = type(peft_model).__name__
        raise ValueError(
            f"adopt: takes what peft.get_peft_model gives, not a {kind}; for a plain model use "
            "adapt(model, LoRA(...))"
        )
    found: dict[str, Any] = {}
    for path, module in peft_model.named_modules():
        if not isinstance(module, BaseTunerLayer):
            continue
        if not isinstance(module, LoraLayer):
            raise ValueError(f"{path}: {type(module).__name__} is no LoRA layer; use LoraConfig")
        plain = type(module) is Linear or quantised.is_bitsandbytes(module.get_base_layer())
        if not plain or module.lora_variant or _site(path, module) is None:
            raise ValueError(f"{path}: {_why(module)}")
        found[path] = module
    if not found:
        raise ValueError("adopt: the model has no LoRA layer; use LoraConfig(target_modules=...)")
    return found


def _why(module: Any) -> str:
    """Why a layer is not understood, and what to do."""
    if any(module.use_dora.values()):
        return _CURES["lora_magnitude_vector"]
    if module.lora_embedding_A:
        return _CURES["lora_embedding"]
    if module.lora_variant:
        kinds = {type(v).__name__ for v in module.lora_variant.values()}
        return f"a variant of LoRA ({', '.join(sorted(kinds))}) is not understood; use plain LoRA"
    base = type(module.get_base_layer()).__name__
    return f"pairs beside a {base} have no gradient by record here; leave it out of target_modules"


def _site(path: str, module: Any) -> Site | None:
    """The base layer with its orientation; None if it is no linear map."""
    base = module.get_base_layer()
    out, into = module.out_features, module.in_features
    if isinstance(base, nn.Linear):
        return Site(path, base, into, out)
    if type(base).__name__ == "Conv1D" and module.fan_in_fan_out:
        return Site(path, base, into, out, transposed=True)
    return None


def _take_pair(
    path: str, module: Any, name: str, sink: PerExampleGradients
) -> dict[Key, nn.Parameter]:
    """The layer's pair by key; from now on it leaves rows while they are collected."""
    if name not in module.lora_A:
        return {}
    a, b = module.lora_A[name], module.lora_B[name]
    if b.bias is not None:
        raise ValueError(f"{path}: {_CURES['.bias']}")
    rate = getattr(module.lora_dropout[name], "p", 0.0)
    if rate:
        raise ValueError(
            f"{path}: lora_dropout = {rate:g} draws its mask by a record's place in the batch, so "
            "one record moves another's gradient; use LoraConfig(lora_dropout=0.0)"
        )
    site = _site(path, module)
    assert site is not None, "refused before"
    ours = AdaptedLinear(site, module.scaling[name], module.r[name], 0.0, sink)
    ours.A, ours.B = a.weight, b.weight
    _check_precision(path, ours.A)
    theirs: Callable[..., Tensor] = module.forward

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not sink.is_open:
            return theirs(x, *args, **kwargs)
        if args or kwargs or module.disable_adapters or module.merged:
            raise ValueError(f"{path}: it is switched off or merged; switch it on to train")
        if list(module.active_adapters) != [name]:
            raise ValueError(f"{path}: another adapter than {name} is active; call set_adapter")
        ours.scale = module.scaling[name]
        y: Tensor = ours(x)
        return y

    module.forward = forward
    return ours.tensors()


def _heads(peft_model: nn.Module, name: str) -> Iterator[tuple[str, nn.Linear]]:
    """Linear maps that PEFT trains and saves whole."""
    from peft.utils.other import ModulesToSaveWrapper

    for path, module in peft_model.named_modules():
        if not isinstance(module, ModulesToSaveWrapper) or name not in module.modules_to_save:
            continue
        for inner, part in module.modules_to_save[name].named_modules():
            if type(part) is nn.Linear:
                yield ".".join(filter(None, (path, "modules_to_save", name, inner))), part


def _take_head(path: str, linear: nn.Linear, sink: PerExampleGradients) -> dict[Key, nn.Parameter]:
    """Weight and bias by key; from now on they leave rows while these are collected."""
    keys = [Key(path, Role.HEAD, part) for part in ("weight", "bias")]
    present = dict(zip(keys, linear.parameters(), strict=False))
    theirs: Callable[[Tensor], Tensor] = linear.forward
    for parameter in present.values():
        _check_precision(path, parameter)

    def forward(x: Tensor) -> Tensor:
        if sink.is_open and any(p.requires_grad for p in present.values()):
            return rows_linear(x, linear.weight, linear.bias, 1.0, sink, keys)
        return theirs(x)

    vars(linear)["forward"] = forward
    return present


def _check_precision(path: str, weight: Tensor) -> None:
    """Norms of gradients in half precision are not what clipping needs."""
    if weight.requires_grad and torch.finfo(weight.dtype).bits < 32:
        raise ValueError(
            f"{path}: is trained in {str(weight.dtype).removeprefix('torch.')}, too coarse to clip "
            "by; convert what is trained with .float()"
        )


def _refuse_uncovered(model: nn.Module, trained: dict[Key, nn.Parameter]) -> None:
    ours = {id(p) for p in trained.values()}
    for path, parameter in model.named_parameters():
        if parameter.requires_grad and id(parameter) not in ours:
            cure = next((text for part, text in _CURES.items() if part in path), None)
            owner = model.get_submodule(path.rpartition(".")[0])
            raise ValueError(
                f"{path} ({type(owner).__name__}): is trained, but "
                f"{cure or 'has no gradient by record here; freeze it with requires_grad_(False)'}"
            )


def _refuse_dropout(model: nn.Module) -> None:
    for path, module in model.named_modules():
        if isinstance(module, _DROPOUTS) and module.p > 0:
            raise ValueError(
                f"{path}: drops numbers at random (p = {module.p:g}), by a record's place in the "
                "batch, so one record moves another's gradient; set p = 0 there, or load the model "
                "with its dropout rates at 0"
            )
