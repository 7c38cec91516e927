"""What the keys of the sections method and train mean together, and what each method refuses.

What a method refuses is not written down here: it is built, and says so itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches

from silotune.adapters import Adapter
from silotune.core import USUAL_STEPS
from silotune.core.names import rank_name
from silotune.methods import Axes
from silotune.methods.axes import completed, refuse_averaged, refuse_by_step, refuse_unproved
from silotune.methods.options import options
from silotune.methods.rate_rule import refuse_unruled
from silotune.methods.registry import takers
from silotune.objectives import find
from silotune.optim import AdamW, OptimizerConfig

from .data_section import DataConfig
from .errors import Problem
from .fields import in_keys, keys
from .method_section import MethodConfig
from .privacy_section import PrivacyConfig
from .sections import ModelConfig, TrainConfig

ADAM_KEYS = ("adam_beta1", "adam_beta2", "adam_eps")
SERVER_KEYS = ("server_learning_rate", "server_momentum")


def targets(method: MethodConfig) -> Iterator[Problem]:
    """Lists that name no layer."""
    for key, value in (
        ("target_modules", method.given("target_modules")),
        ("target_parameters", method.given("target_parameters")),
        ("layers_to_transform", method.given("layers_to_transform")),
    ):
        if value == () and not (key == "target_modules" and method.given("target_parameters")):
            yield Problem(f"method.{key}", "the list is empty; fill it or write null")


def optimizers(train: TrainConfig) -> Iterator[Problem]:
    """Keys of an optimiser that is not the chosen one."""
    if train.optimizer == "adamw" and train.momentum > 0:
        yield Problem("train.momentum", "belongs to optimizer: sgd; leave it out with adamw")
    if train.server_optimizer == "none":
        for key in SERVER_KEYS:
            if getattr(train, key) is not None:
                yield Problem(
                    f"train.{key}", "belongs to a server_optimizer; choose one or leave this out"
                )
    elif train.server_optimizer != "momentum" and train.server_momentum is not None:
        yield Problem(
            "train.server_momentum", "belongs to server_optimizer: momentum; leave it out"
        )


def method(
    model: ModelConfig,
    method: MethodConfig,
    train: TrainConfig,
    privacy: PrivacyConfig | None,
    data: DataConfig | None,
) -> Iterator[Problem]:
    """What the chosen method cannot do with the other keys.

    Args:
        model: says whether there is a head that moves.
        method: its name and options.
        train: brings the optimisers.
        privacy: None if it is unreadable.
        data: likewise.
    """
    wrong = [
        *_head_only(model, method),
        *_experts(method),
        *_options(method),
        *_adamw(method, train),
    ]
    if wrong:
        yield from wrong
        return
    try:
        chosen = method.build()
        clipped_at = privacy.max_grad_norm if privacy and privacy.unit == "example" else None
        optimizer = train.build_optimizer(type(chosen), clipped_at)
        yield from _moments(train, optimizer)
        axes = chosen.axes(optimizer, head=moving_head(model))
        axes = completed(axes, train.proximal_mu, train.build_server_optimizer())
        if train.tail_average:
            refuse_averaged(axes)
        if privacy:
            correlated = privacy.noise == "correlated"
            refuse_unproved(axes, privacy.unit, correlated=correlated)
            if train.normalize_steps:
                refuse_by_step(axes, privacy.unit)
            if train.learning_rate == "auto":
                constant = train.lr_scheduler_type == "constant"
                refuse_unruled(axes, privacy.unit, correlated=correlated, constant=constant)
    except ValueError as error:
        yield _problem(method, str(error))
        return
    if axes.adapter and not axes.adapter.recomputable:
        yield from _caches(model, axes.adapter)
    if axes.adapter and axes.adapter.routed:
        yield from _routers(model, method, data)
    yield from _steps(method, train, axes)


def ranks(
    method: MethodConfig, data: DataConfig | None, privacy: PrivacyConfig | None
) -> Iterator[Problem]:
    """Ranks of silos: whose they are, and where they may differ; what is None is not looked at."""
    given = method.given("ranks")
    if given is None:
        return
    if not given:
        yield Problem("method.ranks", "the mapping is empty; fill it or write null")
    declared = data.num_examples if data else None
    silos = declared if isinstance(declared, Mapping) else {}
    strange = given.keys() - {rank_name(silo, given) for silo in silos}
    if isinstance(declared, Mapping) and strange:
        yield Problem(
            "method.ranks",
            f"{', '.join(sorted(strange))} is no silo of data.num_examples, which names "
            f"{', '.join(declared)}",
        )
    if privacy and privacy.unit == "client":
        yield Problem(
            "method.ranks",
            "a client's change cannot be told from what its lower rank cuts off; use one rank for "
            "all under privacy.unit: client",
        )


def moving_head(model: ModelConfig) -> bool:
    """Whether a head is trained."""
    return find(model.task).head and model.head == "trained"


def _head_only(model: ModelConfig, method: MethodConfig) -> Iterator[Problem]:
    if method.name != "head-only":
        return
    if not find(model.task).head:
        yield Problem("method.name", "head-only needs a classification task; use ffa-lora")
    elif model.head != "trained":
        yield Problem("model.head", "must be trained for method.name: head-only, or nothing moves")


def _options(method: MethodConfig) -> Iterator[Problem]:
    for key in method.strange():
        if owners := takers(key):
            yield Problem(
                f"method.{key}",
                f"belongs to {' and '.join(owners)}; leave it out with {method.name}",
            )
        else:
            yield Problem(f"method.{key}", unknown_option(method, key))


def unknown_option(method: MethodConfig, key: str) -> str:
    """The sentence for a key that no method has: what was probably meant, or what there is."""
    names = type(method).model_fields
    if near := get_close_matches(key, names, 1):
        return f"unknown key; did you mean method.{near[0]}?"
    return f"unknown key; {method.name} has {', '.join(names)}"


def _adamw(method: MethodConfig, train: TrainConfig) -> Iterator[Problem]:
    if not method.chosen.made_of_adamw:
        return
    if train.optimizer == "sgd":
        yield Problem(
            "train.optimizer",
            f"must be adamw for method.name: {method.name}, whose own optimiser is made of it; set "
            "it or leave it out",
        )
    elif train.optimizer is None and train.momentum > 0:
        yield Problem("train.momentum", f"belongs to optimizer: sgd; {method.name} uses adamw")


def _moments(train: TrainConfig, optimizer: OptimizerConfig) -> Iterator[Problem]:
    """Numbers of AdamW, where it is not the optimiser."""
    if isinstance(optimizer, AdamW):
        return
    for key in ADAM_KEYS:
        if getattr(train, key) != TrainConfig.model_fields[key].default:
            yield Problem(f"train.{key}", "belongs to optimizer: adamw; set it, or leave this out")


def _experts(method: MethodConfig) -> Iterator[Problem]:
    if method.name != "mole":
        return
    experts, masked = method.given("experts") or (), method.given("masked_experts") or ()
    if len(experts) < 2:
        yield Problem(
            "method.experts",
            "mole mixes adapters that are trained already; list two of their folders or more",
        )
    elif len(set(experts)) < len(experts):
        yield Problem("method.experts", "a folder is listed twice")
    elif strange := set(masked) - set(experts):
        yield Problem("method.masked_experts", f"{min(strange)} is not among method.experts")
    elif set(masked) == set(experts):
        yield Problem("method.masked_experts", "one expert at least must be left")


def _routers(
    model: ModelConfig, method: MethodConfig, data: DataConfig | None
) -> Iterator[Problem]:
    """What layers that ask a router cannot do. They look at a record's prompt."""
    if not find(model.task).head and data and data.columns.text:
        yield Problem(
            "data.columns.text",
            f"{method.name} looks at a record's prompt, and a plain text has none: its first token "
            "would decide, the same for all; name prompt and completion, or messages",
        )
    if model.gradient_checkpointing == "reentrant":
        yield Problem(
            "model.gradient_checkpointing",
            f"what the routers of {method.name} add to the loss has no gradient under reentrant; "
            "use non-reentrant",
        )


def _caches(model: ModelConfig, adapter: Adapter) -> Iterator[Problem]:
    """What layers that keep something for later ones cannot do."""
    if model.gradient_checkpointing != "none":
        yield Problem(
            "model.gradient_checkpointing",
            f"computes layers one by one again: {adapter.not_recomputable_because}; set it to none",
        )


def _steps(method: MethodConfig, train: TrainConfig, axes: Axes) -> Iterator[Problem]:
    """Every phase must have its turn in a round, or what it shares has not moved."""
    needed = max(axes.schedule.plan(r).steps_of_all for r in (0, 1))
    if train.num_local_epochs is None and (train.local_steps or USUAL_STEPS) < needed:
        yield Problem(
            "train.local_steps",
            f"must be at least {needed} for method.name: {method.name}, which trains one thing "
            "after another",
        )


def _problem(method: MethodConfig, reason: str) -> Problem:
    """The key whose field a refusal names, or else the method's name."""
    named, colon, text = reason.partition(": ")
    if colon and (named == "aggregation" or named in options(method.chosen)):
        return Problem(f"method.{named}", in_keys(text))
    if colon and named in keys():
        return Problem(keys()[named], in_keys(text))
    return Problem("method.name", f"{method.name}: {in_keys(reason)}")
