"""Putting adapters into a model: the one place where modules are replaced."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

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
