"""A site's policy for one configuration that its owner has read: what it asks for, and no more."""

from __future__ import annotations

from typing import Any

from silotune.core import steps_in
from silotune.models.hub import files_digest, local_folder
from silotune.objectives.base import columns_read

from .build import objective
from .schema import Config


def allowing(config: Config, num_examples: int | None) -> dict[str, Any]:
    """Keys of a site's file that let runs like this one begin without anybody looking again.

    Where records are protected, all runs together may cost what this one costs.

    Args:
        config: of the coordinator.
        num_examples: records that the site declares; needed where they decide its steps.

    Returns:
        ``models`` and ``policy``, nested as in the file, without who asks.

    Raises:
        ValueError: if the base model is not on this machine, there is no budget to allow, or the
            number of records is needed.
    """
    digest = files_digest(config.model.name_or_path)
    if not digest:
        raise ValueError(
            f"--allow: no files of {config.model.name_or_path} are on this machine; sites hold the "
            "base themselves, so bring it here first"
        )
    if config.train.num_local_epochs is not None and num_examples is None:
        raise ValueError(
            "--allow: train.num_local_epochs makes the steps of a round of the number of records; "
            "say it (--num-examples)"
        )
    method, train = config.method.build(), config.train
    return {
        "models": {digest: str(local_folder(config.model.name_or_path))},
        "policy": {
            "approve": "any",
            "privacy": _hiding(config),
            "columns": columns_read(objective(config)),
            "methods": tuple(dict.fromkeys((method.name, (method.aggregation or method).name))),
            "max_rounds": max(train.num_rounds, config.privacy.reserve_rounds),
            "max_local_steps": steps_in(
                num_examples or 0,
                batch_size=train.batch_size,
                local_steps=train.local_steps,
                local_epochs=train.num_local_epochs,
            ),
            "releases": tuple(
                name
                for name in ("count", "metric")
                if getattr(config.privacy, f"{name}_noise") is not None
            ),
            "personal": "keep",
            "accept_result": True,
        },
    }


def _hiding(config: Config) -> dict[str, Any]:
    choice = config.privacy.build()
    if choice.unit == "none":
        return {"units": ("none",)}
    if choice.target_epsilon is None or choice.insecure_seeded_noise:
        raise ValueError("--allow: needs a budget (privacy.target_epsilon), and noise of no seed")
    cost = {"epsilon": choice.target_epsilon, "delta": choice.target_delta}
    return {
        "units": (choice.unit,),
        "max_epsilon": choice.target_epsilon,
        "max_delta": choice.target_delta,
        "relations": (choice.relation,),
        "noise": (choice.noise,),
        **({"lifetime": cost} if choice.unit == "example" else {}),
    }
