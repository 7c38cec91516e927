"""A saved adapter as PEFT itself loads it, onto a twin of the base.

The twin has modules of its own, plain ones in the places of ours, and the base's own tensors. So
nothing is read or held twice, and what PEFT puts into the twin never reaches the model that trains.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError
from itertools import chain
from pathlib import Path
from textwrap import shorten

import torch
from torch import nn

from silotune.core import Site
from silotune.core.packages import installed

from .expert_stack import AdaptedExperts
from .inject import AdaptedModel


class PeftRefusedError(ValueError):
    """PEFT does not load an adapter, in its own words."""


def peft_version() -> str:
    """Of the package that is installed; empty if there is none."""
    try:
        return installed("peft")
    except PackageNotFoundError:
        return ""


def twin_of(adapted: AdaptedModel, heads: Sequence[Site]) -> nn.Module:
    """The base model without anything of ours, sharing every tensor.

    Args:
        adapted: stays as it is.
        heads: as they were given to ``inject``.
    """
    model = adapted.model
    shared: dict[int, object] = {
        id(t): t for t in chain(model.parameters(), model.buffers())
    }  # what deepcopy finds here it takes, and copies nothing
    shared |= {id(layer): layer.base for layer in adapted.layers.values()}
    shared |= {id(model.get_submodule(site.name)): site.module for site in heads}
    for module in model.modules():
        if isinstance(module, AdaptedExperts):  # PEFT changes the module that it wraps
            shared[id(module)] = copy.deepcopy(module.base, dict(shared))
    return copy.deepcopy(model, shared)


def loaded_by_peft(adapted: AdaptedModel, heads: Sequence[Site], folder: Path) -> nn.Module:
    """A twin of the base with an adapter that PEFT has loaded, in evaluation mode.

    Args:
        adapted: of the base; stays as it is.
        heads: as they were given to ``inject``.
        folder: of the adapter.

    Raises:
        PeftRefusedError: if PEFT does not load it.
    """
    twin = twin_of(adapted, heads)
    with warnings.catch_warnings(), torch.random.fork_rng():  # PEFT draws pairs before it reads
        warnings.simplefilter("ignore")
        try:
            from peft import PeftModel

            loaded = PeftModel.from_pretrained(twin, folder, torch_device=str(adapted.device))
        except Exception as error:  # whatever it raises means that nobody can load it
            said = f"{type(error).__name__}: {error}"
            raise PeftRefusedError(shorten(said, 300)) from error
    inner: nn.Module = loaded.get_base_model()
    return inner.eval()
