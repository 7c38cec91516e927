"""Build: from a configuration to the adapted model, its first tensors and its proof."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

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
from silotune.config import Config
from silotune.config.choice import chosen_axes
from silotune.core import Factors, Key, Role, RoundPlan, Site
from silotune.engine import LocalTrainer, check_gradients
from silotune.methods import Axes
from silotune.methods.axes import refuse_unproved
from silotune.models.heads import checkpoint_head, prototype_head, random_head
from silotune.models.load import Loaded
from silotune.models.target_modules import batch_coupled, find_sites, hard_routers, peft_targets

from .inputs import objective, read_model


@dataclass(frozen=True, kw_only=True, eq=False)
class BuiltModel:
    """What a run needs and no record decides.

    Attributes:
        loaded: the base model; its module is the adapted one.
        bench: the adapted model and how it is used; shared by all silos of this process.
        recipe: the method.
        first: the tensors of round 0.
        drawn: those of them that a seed decides, so that they need not travel, and the seed.
        fixed: those that never train.
        sites: what is adapted; for ``head-only`` the site that carries PEFT's empty pair.
        layout: what PEFT needs to know.
    """

    loaded: Loaded
    bench: LocalTrainer
    recipe: Axes
    first: Factors
    drawn: Mapping[Key, int]
    fixed: frozenset[Key]
    sites: Sequence[Site]
    layout: PeftLayout

    @property
    def digest(self) -> str:
        """SHA-256 of all that is frozen: the base weights, and what the adapter holds beside."""
        adapter = self.recipe.adapter
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
        return sum(p.numel() for p in self.bench.adapted.model.parameters())

    @property
    def plan(self) -> RoundPlan:
        """The orders of the first round."""
        plan = self.recipe.schedule.plan(0, tuple(self.bench.adapted.layers))
        return replace(plan, fixed=plan.fixed | self.fixed)


def open_model(config: Config, labels: tuple[str, ...]) -> BuiltModel:
    """Open the base model, adapt it, and prove the coverage of the gradients; no record is read.

    Raises:
        ValueError: in words, naming the key of the configuration.
    """
    use_threads(config)
    loaded = read_model(config, labels)
    _refuse_coupling(config, loaded)
    model = build_model(config, loaded)
    guard(model, config)
    return model


def build_model(config: Config, loaded: Loaded) -> BuiltModel:
    """Find the sites, put the adapters in, and draw the first factors.

    Raises:
        ValueError: in words, naming the key of the configuration.
    """
    recipe = build_method(config, has_head=bool(loaded.heads))
    method = config.method.build()
    head_names = [site.name for site in loaded.heads]
    found = find_sites(loaded.model, method.target_modules, method.layers_to_transform, head_names)
    sites = found if recipe.adapter else found[:1]
    adapted_sites = found if recipe.adapter else ()
    if recipe.adapter:
        recipe.adapter.check_sites(adapted_sites)
    targets = peft_targets(sites, loaded.model, head_names)
    first = _first_factors(config, loaded, adapted_sites, recipe)
    loaded.model.to(device_of(config))
    adapted = inject(
        loaded.model, adapted_sites, loaded.heads, recipe.adapter, config.model.head_scale
    )

    @functools.lru_cache(maxsize=2)  # the first tensors, and the last fresh pairs
    def draw(seed: int) -> Factors:
        heads = _scaled(random_head(loaded.heads, seed), config)
        return initial_factors(adapted_sites, _alike(recipe.adapter), seed).updated(heads)

    return BuiltModel(
        loaded=loaded,
        bench=LocalTrainer(
            adapted=adapted,
            objective=objective(config),
            optimizer=recipe.optimizer,
            draw=draw,
            micro_batch=config.train.per_device_train_batch_size,
        ),
        recipe=recipe,
        first=first,
        drawn=_drawn_keys(config, first, recipe),
        fixed=fixed_keys(adapted_sites, recipe.adapter),
        sites=sites,
        layout=PeftLayout(
            base_model=config.model.name_or_path,
            task_type=_task_type(config),
            target_modules=targets,
            modules_to_save=sorted({_outermost(name, loaded) for name in head_names}),
            head_scale=config.model.head_scale,
        ),
    )


def build_method(config: Config, *, has_head: bool) -> Axes:
    """The point on the axes that the configuration names.

    Raises:
        IncompatibleMethodError: if the combination would be wrong.
        ValueError: if something that the method names cannot be read.
    """
    head = has_head and config.model.head == "trained"
    method = config.method.build().opened(config.model.name_or_path)
    recipe = chosen_axes(method, config.train, head=head)
    correlated = config.privacy.noise == "correlated"
    refuse_unproved(recipe, config.privacy.unit, correlated=correlated)
    return recipe


def guard(model: BuiltModel, config: Config) -> None:
    """Run the coverage guard on synthetic inputs.

    Raises:
        GradientCheckError: if a gradient escapes.
    """
    task = objective(config)
    with _without_dropout(model.bench.adapted):
        check_gradients(
            model.bench.adapted,
            task,
            task.synthetic(model.loaded.inputs, 3, config.train.seed),
            model.recipe.trained(),
            tolerance=2e-3 if config.model.dtype == "float32" else 0.1,
        )


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


def _refuse_coupling(config: Config, loaded: Loaded) -> None:
    coupled = batch_coupled(loaded.model) if config.privacy.unit != "none" else []
    if coupled:
        kind = type(loaded.model.get_submodule(coupled[0])).__name__
        raise ValueError(
            f"model.name_or_path: {coupled[0]} ({kind}) mixes the examples of a batch, so no "
            "single record's gradient exists to be clipped; use a model without it, or "
            "privacy.unit: none"
        )
    hard = hard_routers(loaded.model) if config.privacy.unit == "example" else []
    if hard:
        raise ValueError(
            f"model.name_or_path: {hard[0] or 'this model'} sends every token to its best few "
            "experts; in a near tie the other records of a batch decide, so clipping does not "
            "bound what one record changes; use a model without experts, or privacy.unit: client"
        )


def device_of(config: Config) -> torch.device:
    """Where to compute.

    Raises:
        ValueError: if CUDA is asked for and absent.
    """
    if config.train.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("train.device: cuda is not available here; use cpu or auto")
    if config.train.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda")


def use_threads(config: Config) -> None:
    """Let torch use as many threads as configured: results depend on it in their last bits."""
    if config.train.threads is not None:
        torch.set_num_threads(config.train.threads)


def _first_factors(config: Config, loaded: Loaded, sites: Sequence[Site], recipe: Axes) -> Factors:
    return initial_factors(sites, recipe.adapter, config.train.seed).updated(
        _scaled(_first_head(config, loaded), config)
    )


def _first_head(config: Config, loaded: Loaded) -> Factors:
    match config.model.head_init:
        case "random":
            return random_head(loaded.heads, config.train.seed)
        case "checkpoint":
            return checkpoint_head(loaded)
        case "label-prototypes":
            return prototype_head(loaded, _descriptions(config, loaded))


def _descriptions(config: Config, loaded: Loaded) -> list[str]:
    """One text a label: what the configuration says of it, or its own name."""
    labels = config.data.labels
    if isinstance(labels, Mapping):
        return list(labels.values())
    names: Mapping[int, str] = loaded.model.config.id2label  # type: ignore[union-attr, assignment]
    return [names[i] for i in sorted(names)]


def _scaled(head: Factors, config: Config) -> Factors:
    """Heads are kept unscaled, as pairs are."""
    return head.map(lambda t: t / config.model.head_scale)


def _drawn_keys(config: Config, first: Factors, recipe: Axes) -> Mapping[Key, int]:
    """First tensors that every machine draws alike."""
    pairs = recipe.adapter is not None and recipe.adapter.seeded
    alike = {Role.HEAD: config.model.head_init == "random"}
    return {key: config.train.seed for key in first if alike.get(key.role, pairs)}


def _alike(adapter: Adapter | None) -> Adapter | None:
    """The adapter, if its birth depends on the seed alone."""
    return adapter if adapter and adapter.seeded else None


def _outermost(head: str, loaded: Loaded) -> str:
    """The module that PEFT must save to keep a head: all of a head outside the encoder."""
    prefix = str(loaded.model.base_model_prefix)
    first = head.split(".", maxsplit=1)[0]
    return head if first == prefix else first


def _task_type(config: Config) -> str | None:
    if config.model.task == "causal-lm":
        return "CAUSAL_LM"
    plain = config.model.task == "sequence-classification" and config.model.pooling == "model"
    return "SEQ_CLS" if plain else None
