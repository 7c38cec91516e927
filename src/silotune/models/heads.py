"""How the heads begin: from the seed, from the checkpoint, or from descriptions of the labels.

Shapes: C classes, h features of an embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from silotune.core import Factors, Key, Role, Site, generator

from .load import Loaded
from .pooling import MeanPooledClassifier


def random_head(sites: Sequence[Site], seed: int) -> Factors:
    """Weights from U(-1/sqrt(in), 1/sqrt(in)), biases zero; bit for bit the same everywhere.

    Args:
        sites: the heads.
        seed: of the run; each site draws from its own generator.
    """
    tensors: dict[Key, Tensor] = {}
    for site in sites:
        bound = 1.0 / math.sqrt(site.in_features)
        g = generator(seed, "head", site.name)
        shape = (site.out_features, site.in_features)
        weight = torch.rand(shape, generator=g, dtype=torch.float32) * (2 * bound) - bound
        tensors |= _tensors(site, weight, torch.zeros(site.out_features, dtype=torch.float32))
    return Factors(tensors)


def checkpoint_head(loaded: Loaded) -> Factors:
    """The heads that came with the model, in float32.

    Raises:
        ValueError: if the checkpoint lacks one, or has it for another number of classes.
    """
    if loaded.absent:
        raise ValueError(
            f"head_init: the checkpoint has no weights of this shape for "
            f"{', '.join(sorted(loaded.absent))}; use random or label-prototypes"
        )
    tensors: dict[Key, Tensor] = {}
    for site in loaded.heads:
        bias = site.module.bias
        own = bias if isinstance(bias, Tensor) else torch.zeros(site.out_features)
        tensors |= _tensors(site, _float(site.weight()), _float(own))
    return Factors(tensors)


def prototype_head(
    loaded: Loaded,
    label_descriptions: Sequence[str],
    scale: float = 20.0,
    *,
    several: bool = False,
) -> Factors:
    """Class weights: ``scale`` times the unit embedding of each label's description; bias zero.

    Where a text has one label, cosines are only compared. Where it has any number of them, each is
    a yes or no by itself, and all texts have something in common: a text is given a label at first
    if it is nearer to its description than the other labels' descriptions are on the mean.

    Made of public things only, so free of privacy cost. The embeddings differ between machines in
    their last bits: send this head, never its seed.

    Args:
        loaded: a model with mean pooling.
        label_descriptions: one short text for each class, in the order of ids.
        scale: of the logits, which are cosines times this at first.
        several: whether a text may have any number of labels; biases are then not zero.

    Raises:
        ValueError: without mean pooling over text, or unless there is one description per class.
    """
    model, tokenizer = loaded.model, loaded.tokenizer
    if not isinstance(model, MeanPooledClassifier) or tokenizer is None:
        raise ValueError("head_init: label-prototypes needs pooling: mean and texts")
    (site,) = loaded.heads
    if len(label_descriptions) != site.out_features:
        raise ValueError(
            f"labels: {len(label_descriptions)} descriptions for {site.out_features} labels"
        )
    tokens = tokenizer(list(label_descriptions), padding=True, return_tensors="pt")
    with torch.no_grad():
        weight = scale * model.embed(tokens["input_ids"], tokens["attention_mask"])
    bias = -_nearness(weight) / scale if several else torch.zeros(site.out_features)
    return Factors(_tensors(site, weight, bias))


def _nearness(weight: Tensor) -> Tensor:
    """(C,) means of each row's products with the other rows; 0 if there are none."""
    products = weight @ weight.T
    return (products.sum(dim=1) - products.diagonal()) / max(1, len(weight) - 1)


def has_bias(site: Site) -> bool:
    """Whether a head adds anything to its products."""
    return isinstance(site.module.bias, nn.Parameter)


def _tensors(site: Site, weight: Tensor, bias: Tensor) -> dict[Key, Tensor]:
    """Weight (C, h) and, where the site has one, bias (C,) by key."""
    tensors = {Key(site.name, Role.HEAD, "weight"): weight}
    if has_bias(site):
        tensors[Key(site.name, Role.HEAD, "bias")] = bias
    return tensors


def _float(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True)
