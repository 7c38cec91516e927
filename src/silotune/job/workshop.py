"""Workshop: everything a run needs, built from its configuration and checked before it starts."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from silotune.adapters import Init, LoRA, PeftLayout, birth, inject
from silotune.config import Config
from silotune.core import ClientId, Factors, GlobalState, Key, Role, Site
from silotune.engine import Bench, Experiment, Silo, check_coverage
from silotune.models.head import checkpoint_head, prototype_head, random_head
from silotune.models.load import Loaded
from silotune.models.sites import batch_coupled, find_sites, peft_targets
from silotune.optim import SGD, AdamW, Optimizer
from silotune.privacy import Privacy
from silotune.recipe import Recipe
from silotune.recipes import RECIPES
from silotune.reports.record import RunFolder

from .mechanisms import budget, declared_sizes, mechanisms
from .reading import ReadData, known_labels, objective, read_examples, read_model, read_tables


@dataclass(frozen=True, kw_only=True, eq=False)
class Workshop:
    """A run's parts.

    Attributes:
        config: as resolved.
        labels: the public label set.
        data: all records as the model reads them.
        bench: the adapted model and how it is used; shared by all silos of this process.
        recipe: the method.
        privacy: each silo's mechanism.
        sizes: each silo's declared number of records.
        first: the tensors of round 0.
        seeded: those of them that travel as a seed.
        sites: what is adapted; for ``head-only`` the site that carries PEFT's empty pair.
        layout: what PEFT needs to know.
        model_digest: SHA-256 of the base weights.
        notices: what the user should know.
    """

    config: Config
    labels: tuple[str, ...]
    data: ReadData
    bench: Bench
    recipe: Recipe
    privacy: Mapping[str, Privacy]
    sizes: Mapping[str, int]
    first: Factors
    seeded: frozenset[Key]
    sites: Sequence[Site]
    layout: PeftLayout
    model_digest: str
    notices: tuple[str, ...]

    @property
    def private(self) -> bool:
        """Whether the silos' mechanisms hide their records."""
        return self.config.privacy.unit != "none"


def open_workshop(config: Config) -> Workshop:
    """Open data and model, build every part, and prove the coverage of the gradients.

    Raises:
        ValueError: in words, naming the key of the configuration; nothing has been trained.
    """
    labels = known_labels(config)
    prepared = read_tables(config) if labels is None else None
    loaded, model = open_model(config, prepared.labels if prepared else labels or ())
    prepared = prepared or read_tables(config)
    records = {name: len(silo.train) for name, silo in prepared.silos.items()}
    sizes, said = declared_sizes(config, records)
    privacy = mechanisms(config, sizes)
    notices = (*prepared.notices, *loaded.notices, *said)
    return Workshop(
        config=config,
        labels=prepared.labels,
        data=read_examples(config, prepared, loaded),
        bench=model.bench,
        recipe=model.recipe,
        privacy=privacy,
        sizes=sizes,
        first=model.first,
        seeded=model.seeded,
        sites=model.sites,
        layout=model.layout,
        model_digest=loaded.digest,
        notices=notices,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class BuiltModel:
    """The part of a workshop that needs no records."""

    bench: Bench
    recipe: Recipe
    first: Factors
    seeded: frozenset[Key]
    sites: Sequence[Site]
    layout: PeftLayout


def open_model(config: Config, labels: tuple[str, ...]) -> tuple[Loaded, BuiltModel]:
    """Open the base model, adapt it, and prove the coverage of the gradients; no record is read.

    Raises:
        ValueError: in words, naming the key of the configuration.
    """
    use_threads(config)
    loaded = read_model(config, labels)
    _refuse_coupling(config, loaded)
    model = build_model(config, loaded)
    guard(model, config, loaded)
    return loaded, model


def build_model(config: Config, loaded: Loaded) -> BuiltModel:
    """Find the sites, put the adapters in, and draw the first factors.

    Raises:
        ValueError: in words, naming the key of the configuration.
    """
    recipe = build_recipe(config, has_head=bool(loaded.heads))
    method = config.method
    head_names = [site.name for site in loaded.heads]
    found = find_sites(loaded.model, method.target_modules, method.layers_to_transform, head_names)
    sites = found if recipe.adapter else found[:1]
    adapted_sites = found if recipe.adapter else ()
    targets = peft_targets(sites, loaded.model, head_names)
    first = _first_factors(config, loaded, adapted_sites, recipe)
    seeded = _seeded(config, first, recipe)
    loaded.model.to(device_of(config))
    adapted = inject(
        loaded.model, adapted_sites, loaded.heads, recipe.adapter, config.model.head_scale
    )

    @functools.cache
    def draw(seed: int) -> Factors:
        heads = _scaled(random_head(loaded.heads, seed), config)
        return birth(adapted_sites, _drawn(recipe.adapter), seed).updated(heads)

    return BuiltModel(
        bench=Bench(
            adapted=adapted,
            objective=objective(config),
            optimizer=recipe.optimizer,
            draw=draw,
            micro_batch=config.train.per_device_train_batch_size,
        ),
        recipe=recipe,
        first=first,
        seeded=seeded,
        sites=sites,
        layout=PeftLayout(
            base_model=config.model.name_or_path,
            task_type=_task_type(config),
            target_modules=targets,
            modules_to_save=sorted({_outermost(name, loaded) for name in head_names}),
            head_scale=config.model.head_scale,
        ),
    )


def build_recipe(config: Config, *, has_head: bool) -> Recipe:
    """The point on the axes that the configuration names.

    Raises:
        IncompatibleAxes: if the combination would be wrong.
    """
    method, train = config.method, config.train
    optimizer: Optimizer
    if train.optimizer == "sgd":
        optimizer = SGD(
            learning_rate=train.learning_rate,
            momentum=train.momentum,
            weight_decay=train.weight_decay,
        )
    else:
        optimizer = AdamW(learning_rate=train.learning_rate, weight_decay=train.weight_decay)
    adapter = LoRA(
        rank=method.r,
        alpha=method.lora_alpha,
        dropout=method.lora_dropout,
        rslora=method.use_rslora,
        init=Init(method.init_lora_weights),
    )
    head = has_head and config.model.head == "trained"
    return RECIPES[method.name](adapter, optimizer, head=head)


def build_silos(workshop: Workshop, folder: RunFolder | None) -> dict[ClientId, Silo]:
    """The silos as clients; each owns a folder inside the run's."""
    return {
        ClientId(name): Silo(
            client=ClientId(name),
            train=examples.train,
            held_out=examples.held_out,
            privacy=workshop.privacy[name],
            home=folder.site(name) if folder else None,
            budget=budget(workshop.config),
        )
        for name, examples in workshop.data.silos.items()
    }


def build_experiment(
    config: Config, part: BuiltModel | Workshop, sizes: Mapping[str, int], run: str
) -> Experiment:
    """What decides the run, but for the records.

    Args:
        config: as resolved.
        part: brings the recipe and what travels as a seed.
        sizes: each silo's declared number of records.
        run: identifies the run.
    """
    train = config.train
    uniform = train.weighting == "uniform"
    return Experiment(
        run=run,
        recipe=part.recipe,
        weights={ClientId(n): 1.0 if uniform else float(s) for n, s in sizes.items()},
        rounds=train.num_rounds,
        local_steps=train.local_steps,
        linear_decay=train.lr_scheduler_type == "linear",
        seed=train.seed,
        seeded=part.seeded,
        quorum=train.min_clients or len(sizes),
        private=config.privacy.unit != "none",
    )


def first_state(workshop: Workshop) -> GlobalState:
    """Before round 0."""
    return GlobalState(round=0, factors=workshop.first)


def guard(model: BuiltModel, config: Config, loaded: Loaded) -> None:
    """Run the coverage guard on synthetic inputs.

    Raises:
        CoverageError: if a gradient escapes.
    """
    task = objective(config)
    check_coverage(
        model.bench.adapted,
        task,
        task.synthetic(loaded.inputs, 3, config.train.seed),
        model.recipe.schedule.plan(0).trained(),
        tolerance=2e-3 if config.model.dtype == "float32" else 0.1,
    )


def _refuse_coupling(config: Config, loaded: Loaded) -> None:
    coupled = batch_coupled(loaded.model) if config.privacy.unit != "none" else []
    if coupled:
        kind = type(loaded.model.get_submodule(coupled[0])).__name__
        raise ValueError(
            f"model.name_or_path: {coupled[0]} ({kind}) mixes the examples of a batch, so no "
            "single record's gradient exists to be clipped; use a model without it, or "
            "privacy.unit: none"
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


def _first_factors(
    config: Config, loaded: Loaded, sites: Sequence[Site], recipe: Recipe
) -> Factors:
    return birth(sites, recipe.adapter, config.train.seed).updated(
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


def _seeded(config: Config, first: Factors, recipe: Recipe) -> frozenset[Key]:
    """Frozen tensors that every machine draws alike."""
    moving = recipe.schedule.plan(0).trained()
    alike = {
        Role.A: recipe.adapter is not None and recipe.adapter.seeded,
        Role.B: True,
        Role.HEAD: config.model.head_init == "random",
    }
    return frozenset(key for key in first if key.role not in moving and alike[key.role])


def _drawn(adapter: object) -> LoRA | None:
    """The adapter, if its birth depends on the seed alone."""
    return adapter if isinstance(adapter, LoRA) and adapter.seeded else None


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
