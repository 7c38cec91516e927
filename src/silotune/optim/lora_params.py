"""From a model to the parameter groups of our optimisers: which A belongs to which B, and s.

Pairs of a PEFT model are found through PEFT's own layers, and so is the scale s of each: alpha/r,
alpha/sqrt(r) with rsLoRA, whatever ``rank_pattern`` and ``alpha_pattern`` made of it. All else that
trains (heads, ``modules_to_save``, biases) is moved as it is.

An optimiser of pairs takes W = W_0 + s B A for granted. Layers that compute something else (DoRA
and PEFT's other variants, convolutions, embeddings, AdaLoRA) are refused.

Shapes: out, in = features of a site, r = rank.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from silotune.core import Key

from .param_groups import PAIR, REST, Group, groups_of, pair_groups, plain_groups

Found = tuple[str, Tensor, Tensor, float]  # site, A, B, scale


@runtime_checkable
class Adapted(Protocol):
    """A model with adapted layers of our own, such as ``AdaptedModel``."""

    @property
    def layers(self) -> Mapping[str, Any]:
        """The adapted layers by site; each has its ``scale``."""
        ...

    @property
    def tensors(self) -> Mapping[Key, nn.Parameter]:
        """What may train, by key."""
        ...


def lora_params(model: nn.Module | Adapted, *, freeze_a: bool = False) -> list[Group]:
    """The parameter groups of a model with LoRA, for the optimisers of this package.

    A pair is taken if one of its factors trains, a frozen factor with it, since the optimiser needs
    its values. Scales are those at the time of the call.

    Args:
        model: a PEFT model, or whatever holds one, or an adapted model of our own.
        freeze_a: freeze every A first, as LoRA-FA wants.

    Returns:
        A group of pairs for every scale, then one of all else that trains, with the names of all.

    Raises:
        ValueError: if no pair trains, or a layer that trains is no plain pair.
    """
    pairs = _ours(model) if isinstance(model, Adapted) else list(_peft_pairs(model))
    if freeze_a:
        for _, a, _, _ in pairs:
            a.requires_grad_(False)
    trained = [pair for pair in pairs if pair[1].requires_grad or pair[2].requires_grad]
    if not trained:
        raise ValueError(
            "lora_params: the model has no LoRA pair that trains; make it with PEFT's "
            "get_peft_model(model, LoraConfig(...)), or load it with is_trainable=True"
        )
    if isinstance(model, Adapted):
        scales = {site: scale for site, _, _, scale in pairs}
        return groups_of(_trained(model, {site for site, *_ in trained}), lambda site: scales[site])
    in_pairs = {id(p) for _, a, b, _ in pairs for p in (a, b)}
    others = (
        (name, p)
        for name, p in model.named_parameters()
        if p.requires_grad and id(p) not in in_pairs
    )
    return [*pair_groups(trained), *plain_groups(REST, others)]


def _ours(model: Adapted) -> list[Found]:
    """Every pair of an adapted model of our own."""
    found: list[Found] = []
    for site, layer in model.layers.items():
        a, b = (model.tensors.get(Key(site, role)) for role in PAIR)
        if a is None or b is None:
            continue
        scale = getattr(layer, "scale", None)
        if not isinstance(scale, float | int):
            raise ValueError(
                f"lora_params: {site} is a {type(layer).__name__}, which is no plain pair; "
                "optimisers of pairs need layers of LoRA"
            )
        found.append((site, a, b, float(scale)))
    return found


def _trained(model: Adapted, sites: Collection[str]) -> dict[Key, nn.Parameter]:
    """The pairs of these sites, and all else that trains."""
    return {
        key: p
        for key, p in model.tensors.items()
        if p.requires_grad or (key.site in sites and key.role in PAIR)
    }


def _peft_pairs(model: nn.Module) -> Iterator[Found]:
    """Every pair of PEFT's layers that is active; trainable layers must be nothing else.

    PEFT is not imported for this: a model of its making has done so.
    """
    tuners, lora = (
        sys.modules.get(f"peft.tuners.{name}") for name in ("tuners_utils", "lora.layer")
    )
    if tuners is None or lora is None:
        return
    for name, module in model.named_modules():
        if isinstance(module, lora.LoraLayer):
            yield from _pairs_of_layer(name, module)
        elif isinstance(module, tuners.BaseTunerLayer) and not _is_plain(module):
            _refuse_trained(name, module, "is no layer of LoRA")


def _pairs_of_layer(name: str, layer: Any) -> Iterator[Found]:
    for adapter in layer.active_adapters:
        variant = layer.lora_variant.get(adapter)
        if variant is not None:
            kind = variant.__name__ if isinstance(variant, type) else type(variant).__name__
            _refuse_trained(name, layer, f"is PEFT's variant {kind}")
        if adapter in layer.lora_magnitude_vector:
            _refuse_trained(name, layer, "has the magnitudes of DoRA")
        if adapter in layer.lora_embedding_A:
            _refuse_trained(name, layer, "adapts an embedding")
        if adapter not in layer.lora_A:
            continue
        a, b = layer.lora_A[adapter], layer.lora_B[adapter]
        if not (isinstance(a, nn.Linear) and isinstance(b, nn.Linear)):
            _refuse_trained(name, layer, f"has factors of {type(a).__name__}")
            continue
        rank = layer.r[adapter]
        if type(layer).__name__ == "ParamWrapper" or (a.out_features, b.in_features) != (rank,) * 2:
            _refuse_trained(name, layer, "adapts a bare parameter (target_parameters)")
            continue
        site = name if len(layer.active_adapters) == 1 else f"{name}.{adapter}"
        yield site, a.weight, b.weight, float(layer.scaling[adapter])


def _is_plain(module: nn.Module) -> bool:
    """PEFT's trainable tokens are whole numbers of an embedding, moved as they are."""
    return "trainable_tokens" in type(module).__module__


def _refuse_trained(name: str, layer: Any, why: str) -> None:
    """A layer of which nothing trains may be what it likes."""
    own = (
        p
        for part in layer.adapter_layer_names
        for p in _parameters(getattr(layer, part, None))
        if p.requires_grad
    )
    if next(own, None) is not None:
        raise ValueError(
            f"lora_params: {name} {why}, and optimisers of pairs move W_0 + scale B A alone; leave "
            "it out of target_modules, or take torch.optim.AdamW"
        )


def _parameters(part: object) -> Iterator[nn.Parameter]:
    if isinstance(part, nn.Parameter):
        yield part
    elif isinstance(part, nn.Module):
        yield from part.parameters()
