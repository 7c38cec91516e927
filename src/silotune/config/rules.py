"""What keys mean together: the rules that no single key can break.

Each rule yields problems that name the key to change and how. It runs when the sections it looks
at are readable, so that one typing error does not hide the others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import MISSING, dataclass, fields

from silotune.data.files import is_file_name
from silotune.objectives import NEEDS_WORDS, Task, find, say_something
from silotune.objectives.registry import kind_of, those

from . import method_rules
from .data_section import ColumnsConfig, DataConfig, SilosConfig
from .errors import Problem
from .federation_section import FederationConfig
from .method_rules import SERVER_KEYS
from .method_section import MethodConfig
from .privacy_rules import (
    batch,
    budget,
    clients,
    count,
    delta,
    dropout,
    lifetime,
    mechanism,
    metric,
    physical,
)
from .privacy_section import PrivacyConfig
from .sections import ModelConfig, TrainConfig
from .targets_section import TargetsConfig

HEAD_KEYS = ("head", "head_init", "head_scale", "head_bias", "pooling")
REMOTE = ("folder", "nvflare", "flower")
"""Runtimes for clients that are elsewhere."""

LOCAL = {
    "in-process": "in-process is for one machine",
    "pool": "pool is for one machine",
    "ray": "Ray lets every member of a cluster run any code on all others, so it is never between "
    "organisations",
}
"""The other runtimes, and why sites cannot use them."""

DEALING_KEYS = ("split", "alpha")
BY_LABEL = {"dirichlet", "label-skew-mild", "label-skew-severe"}


@dataclass(frozen=True)
class Parts:
    """The readable parts of a configuration; None where a part has problems of its own."""

    model: ModelConfig | None = None
    data: DataConfig | None = None
    method: MethodConfig | None = None
    privacy: PrivacyConfig | None = None
    train: TrainConfig | None = None
    evaluation: str | None = None
    baselines: tuple[str, ...] | None = None
    federation: FederationConfig | None = None
    runtime: str | None = None
    targets: TargetsConfig | None = None
    crowd: int | None = None


def problems(parts: Parts) -> Iterator[Problem]:
    """Everything that the readable parts do wrong together."""
    if parts.model:
        yield from _model(parts.model)
    yield from _elsewhere(parts, parts.federation or FederationConfig())
    if parts.data:
        yield from _declared(parts.data)
    if parts.model and parts.data:
        yield from _columns(parts.model, parts.data.columns)
        yield from _labels_for(parts.model, parts.data)
        yield from _targets(parts.model, parts.targets or TargetsConfig())
    if parts.method:
        yield from method_rules.targets(parts.method)
        yield from method_rules.ranks(parts.method, parts.data, parts.privacy)
    if parts.model and parts.method and parts.train:
        yield from method_rules.method(
            parts.model, parts.method, parts.train, parts.privacy, parts.data
        )
    if parts.privacy:
        yield from budget(parts.privacy)
        yield from mechanism(parts.privacy)
        yield from lifetime(parts.privacy)
        yield from metric(parts.privacy, parts.model, parts.data, parts.evaluation)
    if parts.privacy and parts.method:
        yield from dropout(parts.privacy, parts.method)
    if parts.privacy and parts.data:
        yield from delta(parts.privacy, parts.data)
    if parts.train:
        yield from method_rules.optimizers(parts.train)
        yield from _said_twice(parts.train)
    if parts.privacy and parts.train:
        yield from clients(parts.privacy, parts.train)
        yield from physical(parts.privacy, parts.train)
        yield from count(parts.privacy, parts.train)
    if parts.train and parts.data:
        yield from batch(parts.train, parts.data)
        yield from _quorum(parts.train, parts.data.silos)
    if parts.baselines and parts.evaluation not in (None, "simulation"):
        yield Problem(
            "baselines",
            f"{', '.join(parts.baselines)} needs evaluation: simulation; leave baselines out",
        )


def inapplicable(
    model: ModelConfig,
    data: DataConfig,
    targets: TargetsConfig,
    method: MethodConfig,
    train: TrainConfig,
) -> frozenset[str]:
    """Keys that have no effect beside the others; a resolved configuration leaves them out."""
    keys = {
        f"data.columns.{c}" for c in ColumnsConfig.model_fields if c not in _given(data.columns)
    }
    keys |= {f"targets.{key}" for key in TargetsConfig.model_fields if key not in targets.given()}
    if method.given("ranks") is None:
        keys.add("method.ranks")
    if train.server_optimizer == "none":
        keys |= {f"train.{key}" for key in SERVER_KEYS}
    if not find(model.task).head:
        keys |= {f"model.{key}" for key in _unused_head_keys(find(model.task))}
    if data.silos.num is None:
        keys |= {f"data.silos.{key}" for key in DEALING_KEYS}
    return frozenset(keys)


def _unused_head_keys(task: Task) -> list[str]:
    """Of a task without a head; how a text comes to a vector is to be said without one, too."""
    return [key for key in HEAD_KEYS if not (key == "pooling" and task.embeds)]


def _model(model: ModelConfig) -> Iterator[Problem]:
    task = find(model.task)
    if not task.head:
        for key in _unused_head_keys(task):
            if key in model.model_fields_set:
                yield Problem(f"model.{key}", f"a {task.name} has no new head; leave this key out")
        return
    begins = those(lambda t: t.prototypes)
    if model.pooling not in task.poolings:
        pools = those(lambda t: model.pooling in t.poolings)
        yield Problem("model.pooling", f"{model.pooling} is for task: {pools}; use model")
    if model.head_init == "label-prototypes" and not task.prototypes:
        yield Problem(
            "model.head_init",
            f"label-prototypes come from a text encoder and need task: {begins}; use random",
        )
    if model.head_init == "label-prototypes" and task.prototypes and model.pooling != "mean":
        yield Problem("model.head_init", "label-prototypes needs model.pooling: mean; set it")


def _silos(data: DataConfig) -> Iterator[Problem]:
    silos = data.silos
    if silos.by is not None and silos.num is not None:
        yield Problem("data.silos", "give `by` (a column) or `num` (a number of silos), not both")
        return
    if silos.num is None:
        for key in DEALING_KEYS:
            if key in silos.model_fields_set:
                yield Problem(
                    f"data.silos.{key}",
                    "is for records dealt out to `num` silos; give num or leave this key out",
                )
    path = data.path
    if silos.by is None and silos.num is None and path is not None and is_file_name(path):
        yield Problem(
            "data.silos",
            "say which silo each record of this file belongs to: {by: <column>}, or {num: 3} to "
            "deal them out",
        )


SITES_OWN = (
    "path",
    "name",
    "delimiter",
    "encoding",
    "label_map",
    "silos",
    "valid_fraction",
    "person",
    "limit",
)
"""Keys of ``data`` that a site says of its own records, in its own file."""


def _place(data: DataConfig, federation: FederationConfig) -> Iterator[Problem]:
    """Records are here, or at sites."""
    if not federation.sites:
        if data.path is None:
            yield Problem("data.path", "is missing; set it; for example demo:triage")
        yield from _silos(data)
        return
    for key in SITES_OWN:
        if getattr(data, key) != getattr(DataConfig(), key):
            yield Problem(
                f"data.{key}",
                "is of a site's own records, which federation.sites keep and describe themselves "
                "(site.yaml); leave it out",
            )
    if data.splits.train is not None:
        yield Problem("data.splits.train", "nothing is trained on here; leave it out")


def _elsewhere(parts: Parts, federation: FederationConfig) -> Iterator[Problem]:
    """What sites, or that there are none, mean for the other sections."""
    if parts.data:
        yield from _place(parts.data, federation)
    if parts.runtime:
        yield from _reached(federation, parts.runtime)
        yield from _crowd(parts.runtime, parts.crowd or 1)
    if federation.sites and parts.evaluation == "simulation":
        yield Problem(
            "evaluation",
            "simulation looks at every silo's records, and these are at their sites; set site, or "
            "public with data.splits",
        )


def _crowd(runtime: str, crowd: int) -> Iterator[Problem]:
    """Silos can train together where one process holds all of them."""
    if crowd > 1 and runtime != "in-process":
        yield Problem(
            "crowd",
            f"silos of runtime: {runtime} do not go through one model together; set it to 1",
        )


def _reached(federation: FederationConfig, runtime: str) -> Iterator[Problem]:
    """Sites need a way to them, and nobody else does."""
    remote = runtime in REMOTE
    if federation.sites and not remote:
        yield Problem("runtime", f"{LOCAL[runtime]}; sites need {' or '.join(REMOTE)}")
    if remote and not federation.sites:
        yield Problem("federation.sites", f"runtime: {runtime} is for sites elsewhere; name them")
    if federation.sites and federation.kit is None:
        yield Problem(
            "federation.kit", "name the folder that `silotune federation create` made; set it"
        )


def _declared(data: DataConfig) -> Iterator[Problem]:
    for key in ("num_examples", "num_held_out"):
        if getattr(data, key) == {}:
            yield Problem(f"data.{key}", "the mapping is empty; fill it or write null")
    if data.person is not None and data.person in _names(data.columns):
        yield Problem(
            "data.person",
            f"{data.person} is learned from (data.columns); name a column that is not",
        )
    if data.labels is None:
        return
    labels = list(data.labels)
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        yield Problem("data.labels", f"{', '.join(twice)} stands there twice; keep one")


def _columns(model: ModelConfig, columns: ColumnsConfig) -> Iterator[Problem]:
    given, task = _given(columns), find(model.task)
    if not task.required:
        if given not in task.forms:
            forms = (": ..., ".join(_in_order(form)) for form in task.plain_forms)
            choices = ", or ".join(f"{{{form}: ...}}" for form in forms)
            yield Problem("data.columns", f"{task.name} takes {choices}, not {_listed(given)}")
        return
    for column in _in_order(task.required - given):
        why = f"; {task.needs[column]}" if column in task.needs else ""
        yield Problem(f"data.columns.{column}", f"{model.task} needs it: name that column{why}")
    for column in _in_order(given - task.allowed):
        yield Problem(
            f"data.columns.{column}", f"{model.task} does not read it; leave this key out"
        )


def _labels_for(model: ModelConfig, data: DataConfig) -> Iterator[Problem]:
    task = find(model.task)
    if data.silos.split in BY_LABEL and task.target != "label":
        has = "several on a record" if task.labelled else "none"
        yield Problem(
            "data.silos.split",
            f"{data.silos.split} goes by labels, and a {task.name} has {has}; use iid or quantity",
        )
    if not task.labelled:
        if data.labels is not None:
            yield Problem("data.labels", f"a {task.name} has no labels; leave this key out")
    elif task.target == "entities" and data.labels is None:
        yield Problem("data.labels", "list the types of entities, such as [NAME, DATE]")
    elif data.labels is not None and len(data.labels) < (fewest := task.fewest_labels):
        needs = "two labels or more; null takes them from the data" if fewest > 1 else "one or more"
        yield Problem("data.labels", f"needs {needs}")
    elif model.head_init == "label-prototypes" and not say_something(data.labels):
        yield Problem("data.labels", NEEDS_WORDS)


def _targets(model: ModelConfig, targets: TargetsConfig) -> Iterator[Problem]:
    """Options that another task has, and what this one needs."""
    options = {field.name: field for field in fields(kind_of(model.task))}
    for key in targets.given():
        if key not in options:
            yield Problem(f"targets.{key}", f"a {model.task} has none; leave this key out")
    for key in TargetsConfig.model_fields:
        needed = key in options and options[key].default is MISSING
        if needed and getattr(targets, key) is None:
            yield Problem(f"targets.{key}", f"{model.task} needs it: declare it in public")


def _said_twice(train: TrainConfig) -> Iterator[Problem]:
    for key, other in (
        ("num_local_epochs", "local_steps"),
        ("client_sampling_rate", "clients_per_round"),
    ):
        if None not in (getattr(train, key), getattr(train, other)):
            yield Problem(
                f"train.{key}", f"train.{other} says the same; set one of them, or that one to null"
            )


def _quorum(train: TrainConfig, silos: SilosConfig) -> Iterator[Problem]:
    for key in ("min_clients", "clients_per_round"):
        if silos.num is not None and (getattr(train, key) or 0) > silos.num:
            yield Problem(f"train.{key}", f"must be at most data.silos.num = {silos.num}")


def _given(columns: ColumnsConfig) -> set[str]:
    return {name for name, column in columns if column is not None}


def _names(columns: ColumnsConfig) -> set[str]:
    """Of all columns that are read."""
    named = (column for _, column in columns if column is not None)
    return {name for c in named for name in ([c] if isinstance(c, str) else c)}


def _in_order(columns: Collection[str]) -> list[str]:
    return [name for name in ColumnsConfig.model_fields if name in columns]


def _listed(columns: Collection[str]) -> str:
    return " and ".join(_in_order(columns)) or "nothing"
