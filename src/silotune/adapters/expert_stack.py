"""Experts in one tensor, with a pair beside each: they compute on the merged tensor, as in PEFT.

Which rows an expert reads is decided inside the module, so nobody sees its input by record: there
is ordinary autograd and no gradient of a single record.

Shapes: E experts, out, in, r rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from silotune.core.expert_matrix import ExpertMatrix, experts_by_parameter, parameter_of

from .base import Layer
from .linear import AdaptedLinear


class AdaptedExperts(nn.Module):
    """A module of experts that computes with ``W + scale (F + B A)`` in the place of W.

    Args:
        layers: of every expert, by parameter and number.
    """

    def __init__(self, layers: Sequence[AdaptedLinear]) -> None:
        super().__init__()
        self.base = _matrix(layers[0]).owner
        self.layers = nn.ModuleList(layers)

    def forward(self, *args: object, **kwargs: object) -> object:
        """Whatever the module of experts does with what it is given."""
        merged: dict[str, list[Tensor]] = {}
        for layer in self.layers:
            assert isinstance(layer, AdaptedLinear)
            whole = layer.merged()
            stored = whole.T if layer.transposed else whole
            merged.setdefault(_matrix(layer).parameter, []).append(stored)
        tensors = {name: torch.stack(each) for name, each in merged.items()}
        return functional_call(self.base, tensors, args, kwargs)


def places(layers: Mapping[str, Layer]) -> dict[str, nn.Module]:
    """What is put into a model for its adapted layers, by the name of the module that it replaces.

    Args:
        layers: by site.

    Raises:
        ValueError: if experts are given layers of another kind than a plain pair.
    """
    experts = experts_by_parameter(layers)
    together: dict[str, list[AdaptedLinear]] = {}
    for parameter, sites in experts.items():
        for site in sites:
            layer = layers[site]
            if not isinstance(layer, AdaptedLinear):
                raise ValueError(f"{site}: a {type(layer).__name__} is no pair beside an expert")
            together.setdefault(parameter.rpartition(".")[0], []).append(layer)
    plain: dict[str, nn.Module] = {}
    for site, layer in layers.items():
        if parameter_of(site) not in experts:
            assert isinstance(layer, nn.Module)
            plain[site] = layer
    return plain | {owner: AdaptedExperts(each) for owner, each in together.items()}


def _matrix(layer: AdaptedLinear) -> ExpertMatrix:
    assert isinstance(layer.base, ExpertMatrix)
    return layer.base
