"""Merging: what a run has learned put into its base model, and how much of it survives that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice, zip_longest
from typing import Any

import torch
from torch import nn

from silotune.adapters import AdaptedModel, Estimate, merge, straighten
from silotune.adapters.merge_error import MergeError, in_float32, outputs
from silotune.adapters.straightening import input_norms
from silotune.core import Batch, ClientDataset, Site, generator
from silotune.engine.batches import to_device
from silotune.objectives import Objective, find
from silotune.objectives.tokens import inputs_of
from silotune.terms import BuiltModel, Terms

from .description import Description
from .inputs import read_examples, read_tables
from .trained_models import ModelState

LENGTHS = (8,) * 16
"""Tokens of the made-up records that the error is measured on."""

WINDOW = 100
"""Batches that norms of inputs are the mean of, as in ResLoRA's code (arXiv 2402.18039)."""

Batches = Callable[[], Iterator[Batch]]
"""Records of the run, from the beginning at every call."""


def merged_whole(
    terms: Terms,
    model: BuiltModel,
    numbers: ModelState,
    *,
    estimate: Estimate | None = None,
    batches: Batches | None = None,
) -> tuple[Any, MergeError]:
    """The whole model with adapters and heads merged in, on the CPU; ``model`` is used up.

    Args:
        terms: of the run.
        model: of these terms.
        numbers: what was learned.
        estimate: what shortcuts are estimated by, which the error then tells, too.
        batches: what ``Estimate.INPUTS`` reads; the error is then measured on the first of them.

    Raises:
        ValueError: if nothing can be merged.
    """
    adapted, spec = model.trainer.adapted, model.loaded.inputs
    lengths = [min(n, terms.objective.max_length) for n in LENGTHS]
    made = terms.objective.synthetic(spec, lengths, terms.seed)
    probe = inputs_of(adapted.model, made if batches is None else next(batches()))
    with in_float32(adapted.model):
        adapted.load(model.first)
        untrained = outputs(adapted.model, probe)
        adapted.load(numbers.factors, numbers.folded)
        trained = outputs(adapted.model, probe)
        if estimate is not None:
            norms = None if batches is None else _norms(adapted, terms.objective, batches())
            straighten(adapted.layers, norms)
    whole = merge(adapted, model.loaded.heads).cpu()
    with in_float32(whole):
        merged = outputs(whole, probe)
    error = MergeError.of(
        untrained,
        trained,
        merged,
        whole,
        estimated=estimate is not None,
        records="made-up records" if batches is None else "training records",
    )
    if head := unit_head(terms.objective, model.loaded.heads):
        fold_units(whole.get_submodule(head.name), terms.objective.constants)
    return whole, error


def unit_head(objective: Objective, heads: Sequence[Site]) -> Site | None:
    """The last map of a regression, if it can take in what numbers are standardised by.

    None for another task, and where the map has no bias to take in the mean.
    """
    if find(objective.task).target != "numbers":
        return None
    return heads[-1] if isinstance(heads[-1].module.bias, nn.Parameter) else None


@torch.no_grad()
def fold_units(head: Any, constants: Mapping[str, Sequence[float]]) -> None:
    """Let a linear map (K, h) give mean + scale * output in place of the output."""
    mean, scale = (torch.tensor(constants[name], dtype=torch.float64) for name in ("mean", "scale"))
    head.weight.copy_(head.weight.double() * scale[:, None])
    head.bias.copy_(head.bias.double() * scale + mean)


def refuse_hidden(terms: Terms) -> None:
    """See that a statistic of records may leave them.

    Raises:
        ValueError: if privacy hides them.
    """
    if terms.private:
        raise ValueError(
            "approximate: inputs takes norms of what layers read of training records, a statistic "
            f"that no mechanism of privacy.unit: {terms.unit} covers, so it needs privacy.unit: "
            "none; take weights, which reads no record"
        )


def training_batches(federation: Description, model: BuiltModel, silo: str | None) -> Batches:
    """What a run trained on, without replacement, by turns of the silos; ``WINDOW`` batches.

    Args:
        federation: that the run is of.
        model: that reads the records.
        silo: whose; None for those of all.

    Raises:
        ValueError: if the records are not on this machine, or privacy hides them.
    """
    terms = federation.terms
    refuse_hidden(terms)
    tables = read_tables(terms, federation.records, scored=False)
    if not tables.silos:
        raise ValueError(
            "approximate: inputs reads training records, and those of this run are at its sites; "
            "take weights"
        )
    data = read_examples(terms, tables, model.loaded).silos
    chosen = {name: own.train for name, own in data.items() if silo in (None, name)}
    size = federation.machine.eval_batch_size

    def one(name: str) -> Iterator[Batch]:
        return _shuffled(chosen[name], size, generator(terms.seed, "input norms", name))

    def batches() -> Iterator[Batch]:
        turns = chain.from_iterable(zip_longest(*(one(name) for name in chosen)))
        return islice((batch for batch in turns if batch is not None), WINDOW)

    return batches


def _shuffled(records: ClientDataset, size: int, g: torch.Generator) -> Iterator[Batch]:
    order = torch.randperm(len(records.lengths), generator=g).tolist()
    return (records.batch(order[i : i + size]) for i in range(0, len(order), size))


@torch.inference_mode()
def _norms(
    adapted: AdaptedModel, objective: Objective, batches: Iterable[Batch]
) -> dict[str, float]:
    adapted.model.eval()
    return input_norms(
        adapted.layers,
        lambda batch: adapted.measure(objective.measure, to_device(batch, adapted.device)),
        batches,
    )
