"""Build: from terms to the adapted model, its first tensors and its proof."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from silotune.adapters import (
    AdaptedLinear,
    AdaptedModel,
    Adapter,
    MixedLinear,
    PeftLayout,
    fixed_keys,
    initial_factors,
    inject,
)
from silotune.core import (
    Batch,
    Factors,
    GlobalState,
    ImageInput,
    Key,
    Meters,
    Role,
    RoundPlan,
    Site,
)
from silotune.engine import (
    Coupling,
    GradientCheckError,
    LocalTrainer,
    RecordsMixError,
    StateKeptError,
    check_gradients,
    is_coarse,
)
from silotune.engine.batches import to_device
from silotune.methods import Axes
from silotune.models.heads import checkpoint_head, prototype_head, random_head
from silotune.models.load import GivenModel, Loaded, load_model, prepare_model
from silotune.models.target_modules import find_sites, peft_targets
from silotune.objectives import Objective
from silotune.privacy.choice import Unit

from .cures import cures
from .machine import Machine
from .terms import Terms


@dataclass(frozen=True, kw_only=True, eq=False)
class BuiltModel:
    """What a run needs and no record decides.

    Attributes:
        loaded: the base model; its module is the adapted one.
        trainer: the adapted model and how it is used; shared by all silos of this process.
        axes: the method.
        first: the tensors of round 0.
        drawn: those of them that a seed decides, so that they need not travel, and the seed.
        fixed: those that never train.
        sites: what is adapted; for ``head-only`` the site that carries PEFT's empty pair.
        layout: what PEFT needs to know.
        coupling: how far records move each other, as measured; None before it was.
    """

    loaded: Loaded
    trainer: LocalTrainer
    axes: Axes
    first: Factors
    drawn: Mapping[Key, int]
    fixed: frozenset[Key]
    sites: Sequence[Site]
    layout: PeftLayout
    coupling: Coupling | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of all that is frozen: the base weights, and what the adapter holds beside."""
        adapter = self.axes.adapter
        frozen = adapter.digests() if adapter else ()
        if not frozen:
            return self.loaded.digest
        parts = [self.loaded.digest, *frozen]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    @property
    def trained(self) -> int:
        """How many numbers a silo trains in one round."""
        return self.plan.only_trained(self.first).num_elements()

    @property
    def shared(self) -> int:
        """How many numbers a silo sends in one round."""
        return self.plan.shared(self.first).num_elements()

    @property
    def total(self) -> int:
        """How many numbers the adapted model has."""
        return sum(p.numel() for p in self.trainer.adapted.model.parameters())

    def first_state(self) -> GlobalState:
        """A model that has not learned."""
        return GlobalState(round=0, factors=self.first, drawn=self.drawn)

    @property
    def plan(self) -> RoundPlan:
        """The orders of the first round."""
        plan = self.axes.schedule.plan(0, tuple(self.trainer.adapted.layers))
        return replace(plan, fixed=plan.fixed | self.fixed)


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
    machine.use_threads()
    loaded = read_model(terms, labels, given)
    return proved(build_model(terms, loaded, machine), terms)


def read_model(terms: Terms, labels: tuple[str, ...], given: GivenModel | None = None) -> Loaded:
    """Open the base model.

    Raises:
        ValueError: in words, naming the field.
    """
    objective = terms.objective
    if given is not None:
        return prepare_model(
            given,
            objective.task,
            labels=labels,
            pooling=objective.pooling,
            dtype=terms.dtype,
            gradient_checkpointing=terms.gradient_checkpointing,
        )
    return load_model(
        terms.model,
        objective.task,
        labels=labels,
        pooling=objective.pooling,
        dtype=terms.dtype,
        gradient_checkpointing=terms.gradient_checkpointing,
    )


def build_model(terms: Terms, loaded: Loaded, machine: Machine) -> BuiltModel:
    """Find the sites, put the adapters in, and draw the first factors.

    Raises:
        ValueError: in words, naming the field.
    """
    method = terms.method.opened(terms.model)
    opened = replace(terms, method=method)
    axes = opened.axes(head=bool(loaded.heads) and terms.trains_head)
    head_names = [site.name for site in loaded.heads]
    found = find_sites(loaded.model, method.target_modules, method.layers_to_transform, head_names)
    sites = found if axes.adapter else found[:1]
    adapted_sites = found if axes.adapter else ()
    if axes.adapter:
        axes.adapter.check_sites(adapted_sites)
    targets = peft_targets(sites, loaded.model, head_names)
    first = _first_factors(terms, loaded, adapted_sites, axes)
    loaded.model.to(machine.torch_device())
    adapted = inject(
        loaded.model, adapted_sites, loaded.heads, axes.adapter, terms.objective.head_scale
    )

    @functools.lru_cache(maxsize=2)  # the first tensors, and the last fresh pairs
    def draw(seed: int) -> Factors:
        heads = _scaled(random_head(loaded.heads, seed), terms)
        return initial_factors(adapted_sites, _alike(axes.adapter), seed).updated(heads)

    return BuiltModel(
        loaded=loaded,
        trainer=LocalTrainer(
            adapted=adapted,
            objective=terms.objective,
            optimizer=axes.optimizer,
            draw=draw,
            micro_batch=machine.micro_batch_size,
        ),
        axes=axes,
        first=first,
        drawn=_drawn_keys(terms, first, axes),
        fixed=fixed_keys(adapted_sites, axes.adapter),
        sites=sites,
        layout=PeftLayout(
            base_model=terms.model,
            task_type=_task_type(terms),
            target_modules=targets,
            modules_to_save=sorted({_outermost(name, loaded) for name in head_names}),
            head_scale=terms.objective.head_scale,
        ),
    )


SHORT = (5, 8, 4, 7, 6, 8, 5, 7)
"""Tokens of the short made-up records."""


def proved(model: BuiltModel, terms: Terms) -> BuiltModel:
    """Make the gradient check on made-up records, and see that scores come.

    It finds what it tries: losses that look at other records only where records are many, or of a
    certain kind, are not found. Those of this package do not.

    In half precision rounding is no small matter: where it moves other records by more than float32
    would, and single records are hidden, they go through the model one by one.

    Returns:
        The model with its coupling, as it is to be trained.

    Raises:
        GradientCheckError: if a gradient escapes, or records do not keep apart, with the cure.
        ValueError: if the metric that a run is judged by is missing.
    """
    with _without_dropout(model.trainer.adapted):
        found = _isolated(model, terms)
        records = _made_up(model, terms, min(SHORT[0], _longest(model, terms)))
        metrics = _measured(model.trainer.adapted, terms.objective, records)
    needed = "loss" if terms.objective.task == "causal-lm" else "accuracy"
    if needed not in metrics:
        raise ValueError(
            f"objective: measure of {type(terms.objective).__name__} must give {needed}, by which "
            f"a run of {terms.objective.task} is judged; it gives "
            f"{', '.join(metrics) or 'nothing'}"
        )
    return found


def _isolated(model: BuiltModel, terms: Terms) -> BuiltModel:
    """The model with what was measured; one record at a time if rounding asks for it."""
    try:
        return replace(model, coupling=_checked(model, terms))
    except RecordsMixError as error:
        if not is_coarse(model.trainer.adapted):
            raise RecordsMixError(_with_cures(error, model, terms), error.moved) from error
        mixed = error
    except StateKeptError as error:
        raise StateKeptError(_with_cures(error, model, terms)) from error
    apart = replace(_checked(model, terms, micro_batch=1), moved_if_together=mixed.moved)
    return replace(
        model,
        trainer=replace(model.trainer, micro_batch=1),
        coupling=apart,
        loaded=replace(model.loaded, notices=(*model.loaded.notices, _one_by_one(mixed, model))),
    )


def _one_by_one(mixed: RecordsMixError, model: BuiltModel) -> str:
    return (
        f"dtype: in half precision gradients move by up to {mixed.moved:.2g} of the clipping norm "
        "with the records computed beside them, which clipping does not bound; so records go "
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
        trainer.adapted.model, well, _longest(model, terms), trainer.micro_batch, terms.unit
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
        _made_up(model, terms, longest or _longest(model, terms)),
        model.axes.trained(),
        fixed=model.fixed,
        idle=model.axes.adapter.idle(model.sites) if model.axes.adapter else (),
        unit=unit or terms.unit,
        micro_batch=micro_batch or trainer.micro_batch,
    )


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


def _longest(model: BuiltModel, terms: Terms) -> int:
    """Tokens of the longest record; no tokenizer gives more than its model reads."""
    reads = getattr(model.loaded.tokenizer, "model_max_length", terms.objective.max_length)
    return min(terms.objective.max_length, reads)


def _contexts(config: Mapping[str, Any]) -> set[int]:
    """Numbers of positions that a configuration, or one inside it, was made for."""
    found = {
        n for k, n in config.items() if "max_position" in str(k) and isinstance(n, int) and n > 0
    }
    inner = [part for part in config.values() if isinstance(part, Mapping)]
    return found.union(*map(_contexts, inner))


def _measured(adapted: AdaptedModel, task: Objective, batch: Batch) -> Meters:
    """Scores of a batch, as a run scores."""
    adapted.model.eval()
    with torch.inference_mode():
        return adapted.measure(task.measure, to_device(batch, adapted.device))


@contextlib.contextmanager
def _without_dropout(adapted: AdaptedModel) -> Iterator[None]:
    """The adapters' dropout is drawn anew in each pass, so that no two could be compared."""
    layers = [m for m in adapted.model.modules() if isinstance(m, AdaptedLinear | MixedLinear)]
    rates = [layer.dropout for layer in layers]
    for layer in layers:
        layer.dropout = 0.0
    try:
        yield
    finally:
        for layer, rate in zip(layers, rates, strict=True):
            layer.dropout = rate


def _first_factors(terms: Terms, loaded: Loaded, sites: Sequence[Site], axes: Axes) -> Factors:
    return initial_factors(sites, axes.adapter, terms.seed).updated(
        _scaled(_first_head(terms, loaded), terms)
    )


def _first_head(terms: Terms, loaded: Loaded) -> Factors:
    match terms.objective.head_init:
        case "random":
            return random_head(loaded.heads, terms.seed)
        case "checkpoint":
            return checkpoint_head(loaded)
        case "label-prototypes":
            return prototype_head(loaded, _descriptions(terms, loaded))


def _descriptions(terms: Terms, loaded: Loaded) -> list[str]:
    """One text a label: what the configuration says of it, or its own name."""
    labels = terms.objective.labels
    if isinstance(labels, Mapping):
        return list(labels.values())
    names: Mapping[int, str] = loaded.model.config.id2label  # type: ignore[union-attr, assignment]
    return [names[i] for i in sorted(names)]


def _scaled(head: Factors, terms: Terms) -> Factors:
    """Heads are kept unscaled, as pairs are."""
    return head.map(lambda t: t / terms.objective.head_scale)


def _drawn_keys(terms: Terms, first: Factors, axes: Axes) -> Mapping[Key, int]:
    """First tensors that every machine draws alike."""
    pairs = axes.adapter is not None and axes.adapter.seeded
    alike = {Role.HEAD: terms.objective.head_init == "random"}
    return {key: terms.seed for key in first if alike.get(key.role, pairs)}


def _alike(adapter: Adapter | None) -> Adapter | None:
    """The adapter, if its birth depends on the seed alone."""
    return adapter if adapter and adapter.seeded else None


def _outermost(head: str, loaded: Loaded) -> str:
    """The module that PEFT must save to keep a head: all of a head outside the encoder."""
    prefix = str(loaded.model.base_model_prefix)
    first = head.split(".", maxsplit=1)[0]
    return head if first == prefix else first


def _task_type(terms: Terms) -> str | None:
    if terms.objective.task == "causal-lm":
        return "CAUSAL_LM"
    plain = terms.objective.task == "sequence-classification" and terms.objective.pooling == "model"
    return "SEQ_CLS" if plain else None
