"""Build: from terms to the adapted model and its first tensors."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from silotune.adapters import (
    Adapter,
    PeftLayout,
    fixed_keys,
    initial_factors,
    inject,
)
from silotune.core import (
    Factors,
    GlobalState,
    Key,
    Role,
    RoundPlan,
    Site,
)
from silotune.core.expert_matrix import parameter_of
from silotune.core.half_products import halve
from silotune.core.masks import DECODER
from silotune.core.packed_linear import PackedLinear
from silotune.engine import (
    Coupling,
    LocalTrainer,
)
from silotune.methods import Axes
from silotune.models.heads import checkpoint_head, has_bias, prototype_head, random_head
from silotune.models.limits import check_limits
from silotune.models.load import Conv1D, GivenModel, Loaded, load_model, prepare_model
from silotune.models.saved_modules import beside_heads, saved_modules
from silotune.models.target_modules import peft_targets
from silotune.models.target_parameters import peft_parameters
from silotune.objectives import descriptions, find
from silotune.objectives.base import max_target_length

from .machine import Machine
from .sites import choose_sites
from .start import read_start
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
        start: SHA-256 of the tensors that came from a trained adapter; empty if none did.
        products: number type in which linear maps multiply that are not adapted.
        fits: how many records memory was found to hold at once; None where that was not asked.
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
    start: str = ""
    products: str = "float32"
    fits: int | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of all that is frozen: the base weights, and what the adapter holds beside.

        A base that multiplies in fewer digits is another function.
        """
        adapter = self.axes.adapter
        frozen = [*(adapter.digests() if adapter else ())]
        frozen += [] if self.products == "float32" else [f"products in {self.products}"]
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
        return _numbers_of(self.trainer.adapted.model)

    def first_state(self) -> GlobalState:
        """A model that has not learned."""
        return GlobalState(round=0, factors=self.first, drawn=self.drawn)

    @property
    def plan(self) -> RoundPlan:
        """The orders of the first round."""
        plan = self.axes.schedule.plan(0, tuple(self.trainer.adapted.layers))
        return replace(plan, fixed=plan.fixed | self.fixed)


def read_model(terms: Terms, labels: tuple[str, ...], given: GivenModel | None = None) -> Loaded:
    """Open the base model, and see that it can read the records that it will be given.

    Raises:
        ValueError: in words, naming the field.
    """
    objective = terms.objective
    how: dict[str, Any] = {
        "labels": labels,
        "pooling": objective.pooling,
        "dtype": terms.dtype,
        "quantization": terms.quantization,
        "gradient_checkpointing": terms.gradient_checkpointing,
    }
    if given is not None:
        loaded = prepare_model(given, objective.task, **how)
    else:
        loaded = load_model(terms.model, objective.task, **how)
    apart = find(objective.task).apart
    check_limits(
        loaded,
        objective.max_length,
        pairs="text_pair" in objective.columns.keys() - apart.keys(),
        max_target_length=max_target_length(objective) if DECODER in apart.values() else 0,
    )
    return loaded


def build_model(terms: Terms, loaded: Loaded, machine: Machine) -> BuiltModel:
    """Find the sites, put the adapters in, and draw the first factors.

    Raises:
        ValueError: in words, naming the field.
    """
    method = terms.method.opened(terms.model)
    opened = replace(terms, method=method)
    axes = opened.axes(head=bool(loaded.heads) and terms.trains_head)
    head_names = [site.name for site in loaded.heads]
    chosen = choose_sites(opened, loaded, axes.adapter)
    loaded = replace(loaded, heads=chosen.heads, notices=(*loaded.notices, *chosen.notices))
    sites = chosen.sites if axes.adapter else chosen.sites[:1]
    adapted_sites = sites if axes.adapter else ()
    if axes.adapter:
        axes.adapter.check_sites(adapted_sites)
        _check_passes(terms, axes.adapter)
    _check_size(method.largest_rank, adapted_sites, loaded)
    parameters = peft_parameters(sites)
    modules = [site for site in sites if parameter_of(site.name) not in parameters]
    targets = peft_targets(modules, loaded.model, head_names)
    whole = saved_modules(loaded.model, head_names)
    first = _first_factors(terms, loaded, adapted_sites, axes)
    loaded.model.to(machine.torch_device())
    beside = beside_heads(loaded.model, whole, head_names)
    start = read_start(terms, loaded, first, axes.adapter, beside, parameters)
    first = first.updated(start.factors)
    loaded = replace(loaded, notices=(*loaded.notices, *start.notices))
    adapted = inject(
        loaded.model, adapted_sites, loaded.heads, axes.adapter, terms.objective.head_scale
    )
    if terms.products == "bfloat16":
        _halve(loaded.model, adapted_sites)

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
            gain=axes.gain,
            micro_batch=1 if chosen.one_by_one else machine.together,
            eval_batch=machine.eval_batch_size,
        ),
        axes=axes,
        first=first,
        drawn=_drawn_keys(terms, first.without(start.factors), axes),
        fixed=fixed_keys(adapted_sites, axes.adapter) | _still_biases(terms, loaded.heads),
        sites=sites,
        layout=PeftLayout(
            base_model=terms.model,
            task_type=_task_type(terms),
            target_modules=targets,
            modules_to_save=whole,
            head_scale=terms.objective.head_scale,
            beside=beside,
            target_parameters=parameters,
        ),
        start=start.digest,
        products=terms.products,
    )


def _halve(model: nn.Module, sites: Sequence[Site]) -> None:
    """Let every linear map that is neither adapted nor a head multiply in bfloat16."""
    adapted = {id(site.module) for site in sites}
    for module in model.modules():
        if type(module) in (nn.Linear, Conv1D, PackedLinear) and id(module) not in adapted:
            halve(module, transposed=type(module) is Conv1D)


def _check_passes(terms: Terms, adapter: Adapter) -> None:
    """Refuse to compute a router again that has read another text since.

    Raises:
        ValueError: naming what to set.
    """
    apart = find(terms.objective.task).apart
    if apart and adapter.routed and terms.gradient_checkpointing != "none":
        raise ValueError(
            f"gradient_checkpointing: a router decides for each of the two texts of a "
            f"{terms.objective.task} record, and when its layers are computed again it only knows "
            "the last; set it to none"
        )


MOST_NUMBERS = 10_000_000
"""Of an adapter's pairs, or those of the whole base if these are more."""


def _check_size(rank: int, sites: Sequence[Site], loaded: Loaded) -> None:
    """Refuse pairs that are larger than the model, before memory is taken for them.

    Raises:
        ValueError: naming what to lower.
    """
    numbers = rank * sum(site.in_features + site.out_features for site in sites)
    total = _numbers_of(loaded.model)
    if numbers > max(total, MOST_NUMBERS):
        raise ValueError(
            f"r: pairs of rank {rank:,} at {len(sites):,} modules have {numbers:,} numbers, and "
            f"the whole base has {total:,}; lower r, or name fewer modules"
        )


def _numbers_of(model: nn.Module) -> int:
    """How many numbers a model has, also of what it keeps packed."""
    packed = [m for m in model.modules() if isinstance(m, PackedLinear)]
    kept: int = sum(p.numel() for p in model.parameters())
    return kept + sum(m.out_features * m.in_features for m in packed)


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
            several = find(terms.objective.task).target == "labels"
            return prototype_head(loaded, _described(terms, loaded), several=several)
        case other:
            raise AssertionError(f"an objective resolves {other} when it is made")


def _described(terms: Terms, loaded: Loaded) -> tuple[str, ...]:
    """One text a label; an objective of somebody's own may leave its names to the data."""
    names: Mapping[int, str] = loaded.model.config.id2label  # type: ignore[union-attr, assignment]
    return descriptions(terms.objective.labels or [names[i] for i in sorted(names)])


def _scaled(head: Factors, terms: Terms) -> Factors:
    """Heads are kept unscaled, as pairs are."""
    return head.map(lambda t: t / terms.objective.head_scale)


def _still_biases(terms: Terms, heads: Sequence[Site]) -> frozenset[Key]:
    """The heads' biases, where they stay as they began."""
    if terms.objective.head_bias == "trained":
        return frozenset()
    return frozenset(Key(head.name, Role.HEAD, "bias") for head in heads if has_bias(head))


def _drawn_keys(terms: Terms, first: Factors, axes: Axes) -> Mapping[Key, int]:
    """First tensors that every machine draws alike."""
    pairs = axes.adapter is not None and axes.adapter.seeded
    alike = {Role.HEAD: terms.objective.head_init == "random"}
    return {key: terms.seed for key in first if alike.get(key.role, pairs)}


def _alike(adapter: Adapter | None) -> Adapter | None:
    """The adapter, if its birth depends on the seed alone."""
    return adapter if adapter and adapter.seeded else None


def _task_type(terms: Terms) -> str | None:
    """A classifier of ours beside its encoder is nothing that PEFT knows."""
    task = find(terms.objective.task)
    return None if task.own_classifier(terms.objective.pooling) else task.peft
