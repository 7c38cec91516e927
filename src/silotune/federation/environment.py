"""What is installed here, and what it would compute on: findings that take no configuration."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import torch

from .versions import RECORDED_PACKAGES

EXTRAS = {
    "openpyxl": "needed for xlsx files only: pip install 'silotune[excel]'",
    "pillow": "needed for images only: pip install 'silotune[images]'",
    "bitsandbytes": "needed for quantised base models only: pip install 'silotune[quantised]'",
    **{
        name: f"needed for report_to: [{name}] only: pip install 'silotune[{name}]'"
        for name in ("tensorboard", "mlflow-skinny", "wandb", "trackio")
    },
    "flwr": "needed for runtime: flower only: pip install 'silotune[flower]'",
    "ray": "needed for runtime: ray only: pip install 'silotune[ray]'",
    "peft": "needed to use the adapter elsewhere, and to see before a run that it can be: "
    "pip install peft",
}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at.

    Attributes:
        what: its name.
        ok: whether a run can do with it.
        text: what is there; or what is wrong, and how to repair it.
    """

    what: str
    ok: bool
    text: str


def environment() -> Iterator[Check]:
    """What is installed, and what it would compute on."""
    yield Check(what="python", ok=True, text=f"{platform.python_version()}, {platform.system()}")
    packages = ", ".join(f"{name} {version(name)}" for name in RECORDED_PACKAGES)
    yield Check(what="packages", ok=True, text=packages)
    for name, use in EXTRAS.items():
        try:
            yield Check(what=name, ok=True, text=version(name))
        except PackageNotFoundError:
            yield Check(what=name, ok=True, text=f"not installed; {use}")
    yield Check(what="device", ok=True, text=_device())


def _device() -> str:
    threads = f"{os.cpu_count()} processors, torch uses {torch.get_num_threads()} threads"
    if not torch.cuda.is_available():
        return f"cpu ({threads}); no CUDA device"
    memory = torch.cuda.get_device_properties(0).total_memory
    return f"cuda: {torch.cuda.get_device_name(0)}, {memory / 1e9:.0f} GB; {threads}"
