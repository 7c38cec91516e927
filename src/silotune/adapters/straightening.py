"""Straightening: ResLoRA's shortcuts replaced by estimates, so that they can be merged.

A layer n with an ``input`` or ``middle`` shortcut reads x_{n-k}, of which no weight of its own is
made. The paper (Shi et al. 2024, arXiv 2402.18039) takes a_k x_n for it, with two estimates of how
much longer or shorter the one is than the other:

    inputs:   a_k = f_{n-k} / f_n,  f_n the mean over batches of |x_n| (Frobenius, of a whole batch)
    weights:  a_1 = |M_{n-2}| / |M_{n-1}|,  M merged weights, since x_{n-1} is about M_{n-2} x_{n-2}

and 1 for a ratio of which a part is missing or zero. Neither knows the direction of x_{n-k}: both
are exact only where inputs are parallel and the norms right.

The body of the paper could not be read; the formulas are those of its authors' code. There,
``weights`` is of ``input`` alone. For ``middle`` it is ours: the same step k times, so that
a_k = a_{k-1} |M_{n-k-1}| / |M_{n-k}|. The code also has, for ``middle``, (1 + sum_k a_k) s B_n A_n
with f_n the norm of A_n x_n; as A_{n-k} x has nothing of the direction of A_n x, it is not built.

The norms of inputs are a statistic of records, and what is made of them carries it. No mechanism
covers that, so whoever calls with batches of records sees to it that they need no privacy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum

import torch
from torch import Tensor, nn

from silotune.core import Batch
from silotune.core.site import place_of

from .base import Layer
from .reslora import ResLinear


class Estimate(StrEnum):
    """What tells how long the inputs of earlier layers are."""

    WEIGHTS = "weights"
    INPUTS = "inputs"


@torch.no_grad()
def straighten(layers: Mapping[str, Layer], norms: Mapping[str, float] | None = None) -> None:
    """Replace every input and middle shortcut by its estimate, in the order of the model.

    Approximate: the model computes something else afterwards, and can be merged. Load the factors
    first; the estimate is theirs.

    Args:
        layers: of an adapted model, by site.
        norms: of what layers read, by site (``input_norms``); None estimates by weights.
    """
    merged: dict[str, Tensor] = {}
    for name, layer in layers.items():
        if isinstance(layer, ResLinear) and layer.reads:
            ratios = _by_weights(layer, merged) if norms is None else _by_norms(name, layer, norms)
            layer.straighten(ratios)
        delta = layer.delta()
        merged[name] = (layer.weight.T if layer.transposed else layer.weight).to(delta) + delta


@torch.no_grad()
def input_norms(
    layers: Mapping[str, Layer], run: Callable[[Batch], object], batches: Iterable[Batch]
) -> dict[str, float]:
    """Mean Frobenius norms of what linked layers read, by site: a statistic of records.

    Args:
        layers: of an adapted model that is as it was trained, by site.
        run: gives a batch to the model.
        batches: what ``run`` takes; norms are of all its positions, also of padding.
    """
    of = {name: layer for name, layer in layers.items() if isinstance(layer, ResLinear)}
    found: dict[str, list[Tensor]] = {name: [] for name in of}
    with _watched(of, found):
        for batch in batches:
            run(batch)
    return {name: float(torch.stack(own).mean()) for name, own in found.items() if own}


@contextmanager
def _watched(layers: Mapping[str, ResLinear], found: dict[str, list[Tensor]]) -> Iterator[None]:
    """Norms of what each layer reads meanwhile go to its list."""

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, read: found[name].append(_norm(read[0]))

    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _norm(x: Tensor) -> Tensor:
    """In float32 at least."""
    norm: Tensor = torch.linalg.vector_norm(x.to(torch.promote_types(x.dtype, torch.float32)))
    return norm


def _by_norms(name: str, layer: ResLinear, norms: Mapping[str, float]) -> list[float]:
    return [_ratio(norms.get(before), norms.get(name)) for before in layer.reads]


def _by_weights(layer: ResLinear, merged: Mapping[str, Tensor]) -> list[float]:
    """From the merged weights of the layers before this one."""
    ratios, product = list[float](), 1.0
    for before in layer.reads:
        place = place_of(before)
        assert place is not None
        further = merged.get(f"{place.stack}.{place.layer - 1}.{place.part}")
        longer = None if further is None else float(further.norm())
        product *= _ratio(longer, float(merged[before].norm()))
        ratios.append(product)
    return ratios


def _ratio(longer: float | None, shorter: float | None) -> float:
    """Their quotient; 1 if one is missing or zero."""
    return longer / shorter if longer and shorter else 1.0
