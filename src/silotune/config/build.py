"""Build: a ``Config`` becomes the objects that a notebook would write, here and nowhere else."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from silotune.data import Partition, Splits
from silotune.federation.federation import Federation
from silotune.federation.members import Members
from silotune.federation.settling import settled
from silotune.federation.sites import Sites
from silotune.methods import Method
from silotune.objectives import Objective
from silotune.objectives.registry import kind_of
from silotune.runs.folder import RunFolder

from .fields import naming_keys
from .schema import Config


def build(config: Config) -> Federation:
    """The federation that a configuration describes.

    Raises:
        ConfigError: naming keys, if objects refuse what the keys say together.
    """
    with naming_keys():
        federation = Federation(**arguments(config))
    federation.reasons = config.reasons
    return federation


def settle(config: Config, folder: RunFolder) -> tuple[Config, Federation]:
    """The federation, and its configuration, with a number for what was left to be chosen.

    Args:
        config: as resolved.
        folder: of a run that may have begun, and goes on with its number.

    Raises:
        ConfigError: naming keys.
    """
    federation = build(config)
    with naming_keys():
        one = settled(federation, folder)
    if one is not federation:
        train = config.train.model_copy(update={"learning_rate": one.terms.optimizer.lr})
        config = config.model_copy(update={"train": train})
    return config, one


def arguments(config: Config) -> dict[str, Any]:
    """What ``Federation`` is called with."""
    model, data, train = config.model, config.data, config.train
    method = config.method.build()
    return {
        "model": model.name_or_path,
        "dtype": model.dtype,
        "quantization": model.quantization,
        "products": model.products,
        "gradient_checkpointing": model.gradient_checkpointing,
        "objective": objective(config),
        "method": method,
        **_moved_by(config, method),
        "privacy": config.privacy.build(),
        "rounds": train.num_rounds,
        "local_steps": train.local_steps,
        "local_epochs": train.num_local_epochs,
        "batch_size": train.batch_size,
        "evaluation": config.evaluation,
        "eval_every": train.eval_every,
        "lr_schedule": train.lr_scheduler_type,
        "warmup_steps": train.warmup_steps,
        "warmup_ratio": train.warmup_ratio,
        "lr_schedule_span": train.lr_scheduler_span,
        "local_state": train.local_state,
        "proximal_mu": train.proximal_mu,
        "server_optimizer": train.build_server_optimizer(),
        "weighting": train.weighting,
        "normalize_steps": train.normalize_steps,
        "tail_average": train.tail_average,
        "clients_per_round": train.clients_per_round,
        "cohort_rate": train.client_sampling_rate,
        "min_clients": train.min_clients,
        "largest_update": train.largest_update,
        "upload_dtype": train.upload_dtype,
        "seed": train.seed,
        "clients": data.path,
        "name": data.name,
        "delimiter": data.delimiter,
        "encoding": data.encoding,
        "sheet": data.sheet,
        "label_map": data.label_map,
        "splits": Splits(**data.splits.model_dump()),
        "partition": Partition(**data.silos.model_dump()),
        "num_examples": data.num_examples,
        "num_held_out": data.num_held_out,
        "valid_fraction": data.valid_fraction,
        "person": data.person,
        "limit": data.limit,
        "device": train.device,
        "threads": train.threads,
        "micro_batch_size": train.per_device_train_batch_size,
        "eval_batch_size": train.per_device_eval_batch_size,
        "prefix_cache": train.prefix_cache,
        "workers": config.workers,
        "crowd": config.crowd,
        "round_deadline": train.round_deadline,
        "wait_after_quorum": train.wait_after_quorum,
        "lifetime": config.privacy.lifetime.build(),
        "baselines": config.baselines,
        "report_to": config.report_to,
        **_at_sites(config),
    }


def _moved_by(config: Config, method: Method) -> dict[str, Any]:
    """The optimiser, or that its rate is to be chosen."""
    if config.train.learning_rate == "auto":
        return {"learning_rate": "auto"}
    return {"optimizer": config.train.build_optimizer(type(method))}


def _at_sites(config: Config) -> dict[str, Any]:
    """What is said otherwise where clients are at their sites; nothing where they are here."""
    sites = config.federation
    if not sites.sites:
        return {"runtime": config.runtime}
    splits = config.data.splits
    return {
        "clients": Sites(sites.sites),
        "splits": Splits(),
        "valid": splits.valid,
        "test": splits.test,
        "offer_deadline": sites.offer_deadline,
        **_asked_by(sites.kit),
    }


def _asked_by(kit: str | None) -> dict[str, str]:
    """What sites know this machine as, if a federation was created here; a plan needs none."""
    if kit is None or not Path(kit).exists():
        return {}
    return {"coordinator": Members.open(Path(kit)).coordinator}


def objective(config: Config) -> Objective:
    """What is learned, and what records look like."""
    model, data = config.model, config.data
    kind = kind_of(model.task)
    columns = {part: name for part, name in data.columns.model_dump().items() if name is not None}
    options = {
        "labels": data.labels,
        "max_length": data.max_length,
        "head": model.head,
        "head_init": model.head_init,
        "head_scale": model.head_scale,
        "head_bias": model.head_bias,
        "pooling": model.pooling,
        **config.targets.given(),
    }
    known = {field.name for field in fields(kind)}
    made: Objective = kind(**columns, **{n: value for n, value in options.items() if n in known})
    return made
