"""Merging: what a run has learned put into its base model, and how much of it survives that."""

from __future__ import annotations

from typing import Any

from silotune.adapters import merge, straighten
from silotune.adapters.merge_error import MergeError, in_float32, outputs
from silotune.core import generator
from silotune.core.inputs import synthetic_inputs
from silotune.terms import BuiltModel, Terms

from .trained_models import ModelState

LENGTHS = (8,) * 16
"""Tokens of the made-up records that the error is measured on."""


def merged_whole(
    terms: Terms, model: BuiltModel, numbers: ModelState, *, approximate: bool = False
) -> tuple[Any, MergeError]:
    """The whole model with adapters and heads merged in, on the CPU; ``model`` is used up.

    Args:
        terms: of the run.
        model: of these terms.
        numbers: what was learned.
        approximate: estimate input shortcuts by weight norms, which the error then tells, too.

    Raises:
        ValueError: if nothing can be merged.
    """
    adapted, spec = model.trainer.adapted, model.loaded.inputs
    lengths = [min(n, terms.objective.max_length) for n in LENGTHS]
    made_up = synthetic_inputs(spec, lengths, generator(terms.seed, "merge error"))
    with in_float32(adapted.model):
        adapted.load(model.first)
        untrained = outputs(adapted.model, made_up)
        adapted.load(numbers.factors, numbers.folded)
        trained = outputs(adapted.model, made_up)
    if approximate:
        straighten(adapted.layers)
    whole = merge(adapted, model.loaded.heads).cpu()
    with in_float32(whole):
        merged = outputs(whole, made_up)
    return whole, MergeError.of(untrained, trained, merged, whole)
