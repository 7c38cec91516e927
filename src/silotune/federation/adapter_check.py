"""Adapter check: a saved adapter is loaded by PEFT itself, and must compute what ours computes.

Before the first round, on an update that is made up, so that nobody trains or pays for what nobody
else can load; and once more on what a run has learned. Records are made up as well.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from silotune.adapters import PeftRefusedError, loaded_by_peft, peft_version
from silotune.core import Factors, Key, Role, Site, generator
from silotune.core.expert_matrix import parameter_of
from silotune.engine import is_coarse
from silotune.engine.batches import to_device
from silotune.models.load import quiet
from silotune.models.target_parameters import peft_parameters
from silotune.terms import BuiltModel, Terms
from silotune.terms.opening import short_records

from .trained_models import ModelState, TrainedModels, save_adapter

OWN_FORMAT = "in silotune's own format: PEFT has none for it; silotune.load reads it"
UNCHECKED = "not checked: peft is not installed"

_STRENGTH = 0.5
"""Of the update that is made up, beside the base's own outputs."""

_ROUNDING, _COARSE = 1e-4, 0.02
"""Losses agree to this, relative to 1 + themselves, in float32 and in half precision."""


def refuse_unloadable(model: BuiltModel, terms: Terms) -> str:
    """See that PEFT can load what a run of this model will save.

    Returns:
        What was found, in words.

    Raises:
        ValueError: naming the modules, if PEFT does not load it, or makes something else of it.
    """
    if cannot_be_asked := _unasked(model):
        return cannot_be_asked
    moved = ModelState(factors=_moved(model))
    try:
        return _checked(model, terms, moved)
    except PeftRefusedError as error:
        raise ValueError(_in_words(model, moved, str(error))) from error


AT_SITES = "not checked: every site has a model of its own, and keeps it"
"""Said of models that are not here."""


def check_learned(model: BuiltModel, terms: Terms, learned: TrainedModels) -> str:
    """What PEFT makes of what a run has learned, in words; of each silo's own model one a shape."""
    if cannot_be_asked := _unasked(model):
        return cannot_be_asked
    alike = {_shapes(numbers): numbers for numbers in learned.models()}
    try:
        checked = [_checked(model, terms, numbers) for numbers in alike.values()]
    except PeftRefusedError as error:
        return f"PEFT {peft_version()} cannot use it: {error}; silotune.load can"
    return checked[-1] if checked else AT_SITES


def _unasked(model: BuiltModel) -> str:
    adapter = model.axes.adapter
    if adapter is not None and not adapter.fits_peft:
        return OWN_FORMAT
    return "" if peft_version() else UNCHECKED


def _checked(model: BuiltModel, terms: Terms, numbers: ModelState) -> str:
    """Compare the losses of both on made-up records.

    Raises:
        PeftRefusedError: if PEFT does not load the adapter, or most losses differ.
    """
    adapted, losses = model.trainer.adapted, terms.objective.losses
    batch = to_device(short_records(model, terms), adapted.device)
    adapted.load(numbers.factors, numbers.folded)
    adapted.model.eval()
    with torch.inference_mode():
        ours, theirs = adapted.losses(losses, batch), losses(_by_peft(model, numbers), batch)
    off = ((ours - theirs).abs() / (1.0 + ours.abs())).median()  # one of them may sit on an edge
    if not float(off) <= (_COARSE if is_coarse(adapted) else _ROUNDING):
        raise PeftRefusedError("it loads, but computes something else")
    return f"PEFT {peft_version()} loads it, and computes the same"


def _by_peft(model: BuiltModel, numbers: ModelState) -> nn.Module:
    with quiet(), tempfile.TemporaryDirectory(prefix="silotune-") as name:
        save_adapter(model, numbers, Path(name))
        return loaded_by_peft(model.trainer.adapted, model.loaded.heads, Path(name))


def _moved(model: BuiltModel) -> Factors:
    """The first tensors after an update that is made up, and large enough to be seen."""
    scale = model.axes.adapter.scale if model.axes.adapter else 1.0

    def moved(key: Key, tensor: Tensor) -> Tensor:
        if key.role is Role.A:
            return tensor
        bound = _STRENGTH / math.sqrt(tensor.shape[-1]) / (1.0 if key.role is Role.HEAD else scale)
        drawn = torch.rand(tensor.shape, generator=generator(0, "moved", str(key)))
        return tensor + (2.0 * drawn - 1.0) * bound

    return Factors({key: moved(key, tensor) for key, tensor in model.first.items()})


def _in_words(model: BuiltModel, numbers: ModelState, why: str) -> str:
    """Which target modules or parameters PEFT does not take, if it takes some."""
    said = f"PEFT {peft_version()} cannot use what this run would save ({why})"
    kinds: dict[str, list[Site]] = {}
    for site in model.sites:
        kinds.setdefault(parameter_of(site.name).rpartition(".")[2], []).append(site)
    refused = [kind for kind, sites in kinds.items() if not _loads(model, numbers, sites)]
    experts = [kind for kind, sites in kinds.items() if peft_parameters(sites)]
    if refused and set(refused) <= set(experts):
        return f"target_parameters: {said}; leave out {', '.join(refused)}"
    taken = [kind for kind in kinds if kind not in (*refused, *experts)]
    if refused and taken:
        return f"target_modules: {said}; leave out {', '.join(refused)}: [{', '.join(taken)}]"
    if refused and model.axes.adapter:
        return f"target_modules: {said}; adapt other modules than {', '.join(refused)}"
    return f"model: {said}; take another model, or other target_modules"


def _loads(model: BuiltModel, numbers: ModelState, sites: Sequence[Site]) -> bool:
    """Whether PEFT loads the adapter, were it at these sites alone."""
    parameters = peft_parameters(sites)
    modules = [site.name for site in sites if parameter_of(site.name) not in parameters]
    layout = replace(model.layout, target_modules=modules, target_parameters=parameters)
    try:
        _by_peft(replace(model, sites=sites, layout=layout), numbers)
    except PeftRefusedError:
        return False
    return True


def _shapes(numbers: ModelState) -> tuple[object, ...]:
    """Equal for models that are saved in the same layout."""
    own = ((str(key), tuple(tensor.shape)) for key, tensor in numbers.factors.items())
    return (*sorted(own), *sorted(numbers.folded))
