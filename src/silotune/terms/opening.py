"""Opening: from terms to a model that is adapted, and proved before any record is read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from silotune.adapters import AdaptedLinear, AdaptedModel, CoreLinear, DoRALinear, MixedLinear
from silotune.core import Answers, Batch, ImageInput, joined
from silotune.core.half_products import require_fast
from silotune.engine import (
    Coupling,
    GradientCheckError,
    RecordsMixError,
    StateKeptError,
    check_gradients,
    is_coarse,
)
from silotune.engine.batches import to_device
from silotune.engine.crowd_check import check_crowd
from silotune.engine.prefix_check import PrefixFit, check_prefix
from silotune.models.load import GivenModel
from silotune.objectives import Objective, find
from silotune.privacy.choice import Unit

from .build import BuiltModel, build_model, read_model
from .cures import cures
from .fitting import fitted
from .machine import Machine
from .terms import Terms


def open_model(
    terms: Terms,
    labels: tuple[str, ...],
    machine: Machine | None = None,
    given: GivenModel | None = None,
) -> BuiltModel:
    """Open the base model, adapt it, and prove its gradients; no record is read.

    Args:
        terms: say which model, method and objective.
        labels: the public label set.
        machine: how to compute.
        given: an object in place of the name in ``terms``.

    Raises:
        ValueError: in words, naming the field.
    """
    machine = machine or Machine()
    if terms.products != "float32":
        machine.use_threads()
        require_fast(machine.torch_device())
    model = open_unproved(terms, labels, machine, given)
    if machine.micro_batch_size == "auto":
        model = fitted(model, terms)
    model = proved(model, terms)
    return model if machine.crowd == 1 else crowded(model, terms)


def open_unproved(
    terms: Terms,
    labels: tuple[str, ...],
    machine: Machine | None = None,
    given: GivenModel | None = None,
) -> BuiltModel:
    """The same for what was trained before: to score and to export, which need no gradient.

    Args:
        terms: as ``open_model``; so are all others, and the errors.
        labels: the public label set.
        machine: how to compute.
        given: an object in place of the name in ``terms``.
    """
    machine = machine or Machine()
    machine.use_threads()
    return build_model(terms, read_model(terms, labels, given), machine)


SHORT = (5, 8, 4, 7, 6, 8, 5, 7)
"""Tokens of the short made-up records."""


def proved(model: BuiltModel, terms: Terms) -> BuiltModel:
    """Make the gradient check on made-up records, and see that scores come.

    It finds what it tries: losses that look at other records only where records are many, or of a
    certain kind, are not found. Those of this package do not.

    In half precision rounding is no small matter, and made-up records need not meet it: a number
    that is rounded the other way is rare, and large. So where single records are hidden they go
    through the model one by one, whatever was measured.

    Returns:
        The model with its coupling, as it is to be trained.

    Raises:
        GradientCheckError: if a gradient escapes, or records do not keep apart, with the cure.
        ValueError: if the metric that a run is judged by is missing.
    """
    with _without_dropout(model.trainer.adapted):
        found = _isolated(model, terms)
        records = _made_up(model, terms, min(SHORT[0], terms.objective.max_length))
        answers = _measured(model.trainer.adapted, terms.objective, records)
    task, metrics = find(terms.objective.task), answers.totals
    needed = task.meter
    if needed not in metrics:
        raise ValueError(
            f"objective: measure of {type(terms.objective).__name__} must give {needed}, by which "
            f"a run of {terms.objective.task} is judged; it gives "
            f"{', '.join(metrics) or 'nothing'}"
        )
    task.derive(joined([answers]))  # which refuses what it needs and is not installed
    return found


def _isolated(model: BuiltModel, terms: Terms) -> BuiltModel:
    """The model with what was measured; one record at a time where half precision couples them."""
    adapted, together = model.trainer.adapted, model.trainer.micro_batch > 1
    try:
        found = _checked(model, terms)
    except RecordsMixError as error:
        if not is_coarse(adapted):
            raise RecordsMixError(_with_cures(error, model, terms), error.moved) from error
        moved = error.moved
    except StateKeptError as error:
        raise StateKeptError(_with_cures(error, model, terms)) from error
    else:
        if not (together and terms.unit == "example" and is_coarse(adapted)):
            return replace(model, coupling=found)
        moved = max(found.moved, found.moved_at_large)
    return replace(
        model,
        trainer=replace(model.trainer, micro_batch=1),
        coupling=replace(_checked(model, terms, micro_batch=1), moved_if_together=moved),
        loaded=replace(model.loaded, notices=(*model.loaded.notices, _one_by_one(moved, model))),
    )


def _one_by_one(moved: float, model: BuiltModel) -> str:
    field = "dtype" if model.products == "float32" else "products"
    return (
        f"{field}: in half precision gradients move with the records computed beside them (made-up "
        f"ones by {moved:.2g} of the clipping norm), which clipping does not bound; so records go "
        f"through the model one by one, up to {model.trainer.micro_batch} times as many passes in "
        "a step; float32 computes them together"
    )


def _with_cures(error: Exception, model: BuiltModel, terms: Terms) -> str:
    def well(**changes: Any) -> bool:
        try:
            _checked(model, terms, **changes)
        except GradientCheckError:
            return False
        return True

    trainer = model.trainer
    listed = cures(
        trainer.adapted.model, well, terms.objective.max_length, trainer.micro_batch, terms.unit
    )
    return f"model: {error}; {'; or '.join(listed)}"


def _checked(
    model: BuiltModel,
    terms: Terms,
    *,
    longest: int | None = None,
    unit: Unit | None = None,
    micro_batch: int | None = None,
) -> Coupling:
    trainer = model.trainer
    return check_gradients(
        trainer.adapted,
        trainer.objective,
        _made_up(model, terms, longest or terms.objective.max_length),
        model.axes.trained(),
        fixed=model.fixed,
        idle=model.axes.adapter.idle(model.sites) if model.axes.adapter else (),
        unit=unit or terms.unit,
        micro_batch=micro_batch or trainer.micro_batch,
    )


def crowded(model: BuiltModel, terms: Terms) -> BuiltModel:
    """Prove, on made-up records, that clients may train together.

    Returns:
        The model, with the larger coupling.

    Raises:
        ValueError: if they may not, with the reason.
    """
    adapter, found = model.axes.adapter, model.coupling
    assert found is not None, "a model is proved before its crowds are"
    if terms.unit == "client":
        raise ValueError(
            "crowd: what a hidden client sends must not move, even by rounding, with the records "
            "of another; set it to 1"
        )
    if adapter is not None and not adapter.crowdable:
        raise ValueError(f"crowd: {adapter.not_crowdable_because}; set it to 1")
    if found.together == 1:
        raise ValueError(
            "crowd: records go through the model one by one here, so that clients share no pass; "
            "set it to 1, or let records go together (dtype, products, micro_batch_size)"
        )
    with _without_dropout(model.trainer.adapted):
        try:
            coupling = check_crowd(
                model.trainer.adapted,
                terms.objective,
                _made_up(model, terms, terms.objective.max_length),
                model.axes.trained(),
                coupling=found,
                fixed=model.fixed,
                unit=terms.unit,
            )
        except GradientCheckError as error:
            raise ValueError(f"crowd: {error}; set it to 1") from error
    return replace(model, coupling=coupling)


def prefix_fit(model: BuiltModel, terms: Terms) -> PrefixFit:
    """Whether what lies below the lowest adapted layer may be remembered; no record is read."""
    adapted = model.trainer.adapted
    with _without_dropout(adapted):
        return check_prefix(
            adapted,
            terms.objective,
            _made_up(model, terms, terms.objective.max_length),
            model.axes.trained(),
            fixed=model.fixed,
            by_rows=terms.unit == "example",
            apart=model.trainer.micro_batch == 1,
        )


def short_records(model: BuiltModel, terms: Terms) -> Batch:
    """A few made-up records, as the model reads them."""
    return _made_up(model, terms, min(max(SHORT), terms.objective.max_length))


def _made_up(model: BuiltModel, terms: Terms, longest: int) -> Batch:
    """Records of lengths that real ones reach; images are all of one size.

    Besides short ones: the full length and one token less, where something may be cut off; half of
    it; and where a context ends that the configuration speaks of.
    """
    inputs = model.loaded.inputs
    if isinstance(inputs, ImageInput):
        return terms.objective.synthetic(inputs, SHORT, terms.seed)
    ends = _contexts(model.loaded.model.config.to_dict())  # type: ignore[union-attr, operator]
    marks = {longest // 2, longest - 1, longest, *(e + i for e in ends for i in (-1, 0, 1))}
    lengths = [min(n, longest) for n in SHORT]
    lengths += sorted(n for n in marks if max(SHORT) < n <= longest)
    return terms.objective.synthetic(inputs, lengths, terms.seed)


def _contexts(config: Mapping[str, Any]) -> set[int]:
    """Numbers of positions that a configuration, or one inside it, was made for."""
    found = {
        n for k, n in config.items() if "max_position" in str(k) and isinstance(n, int) and n > 0
    }
    inner = [part for part in config.values() if isinstance(part, Mapping)]
    return found.union(*map(_contexts, inner))


def _measured(adapted: AdaptedModel, task: Objective, batch: Batch) -> Answers:
    """Scores of a batch, as a run scores."""
    adapted.model.eval()
    with torch.inference_mode():
        return adapted.measure(task.measure, to_device(batch, adapted.device))


@contextlib.contextmanager
def _without_dropout(adapted: AdaptedModel) -> Iterator[None]:
    """The adapters' dropout is drawn anew in each pass, so that no two could be compared."""
    layers = [
        m
        for m in adapted.model.modules()
        if isinstance(m, AdaptedLinear | CoreLinear | DoRALinear | MixedLinear)
    ]
    rates = [layer.dropout for layer in layers]
    for layer in layers:
        layer.dropout = 0.0
    try:
        yield
    finally:
        for layer, rate in zip(layers, rates, strict=True):
            layer.dropout = rate
