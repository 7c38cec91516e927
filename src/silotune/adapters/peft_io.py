"""PEFT's folder format: what is written here loads with ``PeftModel.from_pretrained``.

``adapter_config.json`` and ``adapter_model.safetensors``: pairs under ``lora_A`` and ``lora_B``,
heads whole under ``modules_to_save``. PEFT applies alpha/r itself, so pairs are written unscaled;
heads carry their scale with them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from silotune.core import Factors, Key, Role, Site, write_bytes

from .base import Adapter

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PREFIX = "base_model.model."
_PARTS = {Role.A: "lora_A.weight", Role.B: "lora_B.weight"}


@dataclass(frozen=True, kw_only=True)
class PeftLayout:
    """What PEFT needs to know beyond the tensors.

    Attributes:
        base_model: hub name or folder of the base model.
        task_type: SEQ_CLS, CAUSAL_LM, or None for any other model.
        target_modules: names that match the adapted sites and nothing else; for a head alone, the
            one module that carries a pair of zeros, because PEFT refuses an adapter without any.
        modules_to_save: modules that hold the heads.
        head_scale: what the heads' factors are multiplied by.
    """

    base_model: str
    task_type: str | None
    target_modules: Sequence[str]
    modules_to_save: Sequence[str]
    head_scale: float


def save_peft(
    folder: Path,
    factors: Factors,
    adapter: Adapter | None,
    sites: Sequence[Site],
    layout: PeftLayout,
) -> None:
    """Write an adapter folder; each file is replaced whole.

    Args:
        folder: made if absent.
        factors: all of the model's.
        adapter: None for a head alone.
        sites: the adapted sites; for a head alone, the carrier.
        layout: the rest.

    Raises:
        RecordError: if the disk is full or the place cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    carried = {} if adapter else {k: t for site in sites for k, t in _zeros(site).items()}
    whole = factors.updated(carried)
    tensors = {_name(k): _value(k, t, layout.head_scale) for k, t in whole.items()}
    write_bytes(folder / WEIGHTS, save(tensors, metadata={"format": "pt"}))
    config = {
        "peft_type": "LORA",
        "task_type": layout.task_type,
        "base_model_name_or_path": layout.base_model,
        "inference_mode": True,
        "r": adapter.rank if adapter else 1,
        "lora_alpha": adapter.alpha if adapter else 1.0,
        "lora_dropout": adapter.dropout if adapter else 0.0,
        "use_rslora": adapter.rslora if adapter else False,
        "bias": "none",
        "fan_in_fan_out": any(site.transposed for site in sites),
        "target_modules": list(layout.target_modules),
        "modules_to_save": list(layout.modules_to_save) or None,
    }
    write_bytes(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())


def load_peft(folder: Path, expected: Mapping[Key, tuple[int, ...]], head_scale: float) -> Factors:
    """Read an adapter folder, whether we or PEFT wrote it.

    Args:
        folder: holds the two files.
        expected: shapes of the model's factors.
        head_scale: what the heads' factors are multiplied by.

    Raises:
        ValueError: if the folder is not an adapter, or not one of this model.
    """
    try:
        tensors = load((folder / WEIGHTS).read_bytes())
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{folder / WEIGHTS} cannot be read: {error}") from error
    names = {_name(key): key for key in expected}
    tensors = {n: t for n, t in tensors.items() if n in names or t.any()}
    if differ := names.keys() ^ tensors.keys():
        raise ValueError(f"{folder} does not fit the model; tensors differ: {min(differ)}")
    factors = Factors(
        {names[n]: _value(names[n], t.float(), 1.0 / head_scale) for n, t in tensors.items()}
    )
    wrong = [key for key, t in factors.items() if tuple(t.shape) != expected[key]]
    if wrong:
        raise ValueError(f"{folder} does not fit the model; the shape of {wrong[0]} differs")
    return factors


def _name(key: Key) -> str:
    return f"{_PREFIX}{key.site}.{_PARTS.get(key.role, key.name)}"


def _zeros(site: Site) -> dict[Key, Tensor]:
    """A pair of rank 1 that does nothing."""
    return {
        Key(site.name, Role.A): torch.zeros(1, site.in_features),
        Key(site.name, Role.B): torch.zeros(site.out_features, 1),
    }


def _value(key: Key, tensor: Tensor, head_scale: float) -> Tensor:
    return (tensor * head_scale if key.role is Role.HEAD else tensor).contiguous()
