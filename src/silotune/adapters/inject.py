"""Putting adapters into a model: the one place where modules are replaced."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from silotune.core import Factors, GradientSink, Key, Role, Site

from .base import Adapter
from .linear import AdaptedLinear, Head


@dataclass(frozen=True, eq=False)
class AdaptedModel:
    """A frozen base model with adapted sites and heads, used by all clients of a process in turn.

    Attributes:
        model: the transformers model, changed in place.
        sink: where open forward and backward passes leave per-example gradients.
        tensors: every adapter and head tensor by key.
    """

    model: nn.Module
    sink: GradientSink
    tensors: Mapping[Key, nn.Parameter]

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return next(self.model.parameters()).device

    def load(self, factors: Factors) -> None:
        """Replace every tensor, so that nothing of an earlier client is left.

        Raises:
            ValueError: if a tensor is missing, unknown or of another shape.
        """
        differ = factors.keys() ^ self.tensors.keys()
        if differ:
            raise ValueError(f"factors do not fit the model: {', '.join(map(str, sorted(differ)))}")
        with torch.no_grad():
            for key, parameter in self.tensors.items():
                if parameter.shape != factors[key].shape:
                    raise ValueError(
                        f"{key}: shape {tuple(factors[key].shape)} does not fit the model's "
                        f"{tuple(parameter.shape)}"
                    )
                parameter.copy_(factors[key])

    def extract(self) -> Factors:
        """A copy of every tensor, on the CPU."""
        return Factors({k: p.detach().to("cpu", copy=True) for k, p in self.tensors.items()})

    def train_only(self, roles: Collection[Role]) -> dict[Key, nn.Parameter]:
        """Let gradients flow to these roles and no others; returns what is trained."""
        for key, parameter in self.tensors.items():
            parameter.requires_grad_(key.role in roles)
        return {k: p for k, p in self.tensors.items() if p.requires_grad}


def inject(
    model: nn.Module,
    sites: Sequence[Site],
    heads: Sequence[Site],
    adapter: Adapter | None,
    head_scale: float = 1.0,
) -> AdaptedModel:
    """Freeze ``model`` and replace its sites and heads by adapted layers.

    Args:
        model: changed in place; every parameter is frozen.
        sites: places to adapt; empty without an adapter.
        heads: linear heads, which are always ours so that they begin from the seed everywhere.
        adapter: the parametrisation, or None to train heads only.
        head_scale: see ``Head``.
    """
    model.requires_grad_(False)
    sink = GradientSink()
    layers: dict[str, AdaptedLinear | Head] = {s.name: Head(s, head_scale, sink) for s in heads}
    if adapter is not None:
        layers |= {s.name: AdaptedLinear(s, adapter, sink) for s in sites}
    for name, layer in layers.items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer)
    tensors = {k: p for layer in layers.values() for k, p in layer.tensors().items()}
    return AdaptedModel(model, sink, dict(sorted(tensors.items())))


def merge(adapted: AdaptedModel, heads: Sequence[Site]) -> nn.Module:
    """Put the plain modules back, with weights that compute the same: W + scale B A, scale H.

    The adapted model is used up. Weights keep the base's own number type.

    Args:
        adapted: loaded with the factors to merge.
        heads: as they were given to ``inject``.

    Raises:
        ValueError: if an adapted weight is also used elsewhere in the model (tied), where it must
            not change.
    """
    model, plain = adapted.model, {site.name: site.module for site in heads}
    names = [n for n, m in model.named_modules() if isinstance(m, AdaptedLinear | Head)]
    for name in names:
        layer = model.get_submodule(name)
        if isinstance(layer, AdaptedLinear):
            _refuse_tied(model, name, layer.weight)
            _merge_pair(layer)
            plain[name] = layer.base
        elif isinstance(layer, Head):
            _merge_head(layer, plain[name])
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, plain[name])
    return model


def birth(sites: Sequence[Site], adapter: Adapter | None, seed: int) -> Factors:
    """The pairs of all sites as they begin. Call it before ``inject`` or with the same sites."""
    return Factors(
        {
            Key(site.name, role): tensor
            for site in sites
            if adapter is not None
            for role, tensor in adapter.birth(site, seed).items()
        }
    )


@torch.no_grad()
def _merge_pair(layer: AdaptedLinear) -> None:
    weight = layer.weight.T if layer.transposed else layer.weight
    weight.copy_(torch.addmm(weight.to(layer.A.dtype), layer.B, layer.A, alpha=layer.scale))


@torch.no_grad()
def _merge_head(head: Head, plain: nn.Module) -> None:
    plain.get_parameter("weight").copy_(head.weight * head.scale)
    if head.bias is not None:
        plain.get_parameter("bias").copy_(head.bias * head.scale)


def _refuse_tied(model: nn.Module, name: str, weight: Tensor) -> None:
    uses = [n for n, p in model.named_parameters(remove_duplicate=False) if p is weight]
    if len(uses) > 1:
        raise ValueError(
            f"{name}: its weight is tied to {' and '.join(uses)}, so nothing can be merged into it;"
            " export it as peft"
        )
