"""Doctor: is everything here that a run needs? One finding after the other, in words.

A finding that fails does not hide those that do not depend on it.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

import torch

from silotune.config import Config
from silotune.data.federated_dataset import Prepared
from silotune.models.load import Loaded
from silotune.runs.folder import RunFolder

from .build import BuiltModel, device_of, open_model
from .inputs import known_labels, read_examples, read_tables
from .mechanisms import central_mechanism, declared_sizes, mechanisms
from .opening import PACKAGES, free_space

T = TypeVar("T")

EXTRAS = {
    "pillow": "needed for images only: pip install 'silotune[images]'",
    "tensorboard": "needed for report_to: [tensorboard] only: pip install 'silotune[tensorboard]'",
    "peft": "needed to use the adapter elsewhere, not to train it: pip install peft",
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
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    yield Check(what="packages", ok=True, text=packages)
    for name, use in EXTRAS.items():
        try:
            yield Check(what=name, ok=True, text=version(name))
        except PackageNotFoundError:
            yield Check(what=name, ok=True, text=f"not installed; {use}")
    yield Check(what="device", ok=True, text=_device())


def configuration(config: Config) -> Iterator[Check]:
    """Whether disk, data, model and privacy of a configuration work out. Nothing is written."""
    yield _found("output_dir", lambda: _place(config))
    yield _found("train.device", lambda: str(device_of(config)))
    prepared = _tried(lambda: read_tables(config))
    yield _found("data", lambda: _silos(_whole(prepared)))
    labels = prepared.labels if isinstance(prepared, Prepared) else known_labels(config)
    if labels is None:
        yield Check(what="model", ok=False, text="not looked at: its labels come from the data")
        return
    model = _tried(lambda: open_model(config, labels))
    yield _found("model", lambda: _numbers(_whole(model)))
    if isinstance(prepared, Prepared):
        tables = prepared
        yield _found("privacy", lambda: _noise(config, tables))
        if isinstance(model, BuiltModel):
            reader = model.loaded
            yield _found("records", lambda: _records(config, tables, reader))


def _tried(look: Callable[[], T]) -> T | Exception:
    """What was found, or what was wrong."""
    try:
        return look()
    except (ValueError, OSError, ImportError) as error:
        return error


def _whole(found: T | Exception) -> T:
    if isinstance(found, Exception):
        raise found
    return found


def _found(what: str, look: Callable[[], str]) -> Check:
    """The finding of something that is told in words."""
    said = _tried(look)
    wrong = isinstance(said, Exception)
    return Check(what=what, ok=not wrong, text=" ".join(str(said).split()))


def _device() -> str:
    threads = f"{os.cpu_count()} processors, torch uses {torch.get_num_threads()} threads"
    if not torch.cuda.is_available():
        return f"cpu ({threads}); no CUDA device"
    memory = torch.cuda.get_device_properties(0).total_memory
    return f"cuda: {torch.cuda.get_device_name(0)}, {memory / 1e9:.0f} GB; {threads}"


def _place(config: Config) -> str:
    folder = RunFolder(Path(config.output_dir))
    free = free_space(folder.path)
    state = "holds a run already; " if folder.run.exists() else ""
    return f"{folder.path}: {state}{free / 1e9:.1f} GB free"


def _silos(prepared: Prepared) -> str:
    records = sum(len(silo.train) for silo in prepared.silos.values())
    labels = f", {len(prepared.labels)} labels" if prepared.labels else ""
    return f"{len(prepared.silos)} silos, {records:,} training records{labels}"


def _numbers(model: BuiltModel) -> str:
    return (
        f"{model.total:,} numbers, {model.trained:,} of them trained at {len(model.sites)} "
        "places; every gradient is covered"
    )


def _noise(config: Config, prepared: Prepared) -> str:
    records = {name: len(silo.train) for name, silo in prepared.silos.items()}
    sizes, _ = declared_sizes(config, records)
    found = mechanisms(config, sizes).values()
    charges = [central_mechanism(config, len(sizes)).charge(), *(m.charge(1) for m in found)]
    sigmas = [charge.noise_multiplier for charge in charges if charge]
    if not sigmas:
        return "none: nothing bounds what the messages reveal"
    return f"noise multiplier {min(sigmas):.3g} to {max(sigmas):.3g}"


def _records(config: Config, prepared: Prepared, reader: Loaded) -> str:
    data = read_examples(config, prepared, reader)
    longest = max(max(silo.train.lengths) for silo in data.silos.values())
    return f"the model can read all of them; the longest has length {longest}"
