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

from silotune.core.units import count_text
from silotune.data.federated_dataset import Prepared
from silotune.models.load import Loaded
from silotune.privacy.mechanisms_from_choice import client_mechanisms, server_mechanism
from silotune.runs.folder import RunFolder
from silotune.terms import BuiltModel, Terms, open_model

from .adapter_check import refuse_unloadable
from .built import public_sizes
from .description import Description
from .inputs import read_examples, read_tables
from .opening import free_space
from .records import Records
from .versions import RECORDED_PACKAGES

T = TypeVar("T")

EXTRAS = {
    "openpyxl": "needed for xlsx files only: pip install 'silotune[excel]'",
    "pillow": "needed for images only: pip install 'silotune[images]'",
    "bitsandbytes": "needed for quantised base models only: pip install 'silotune[quantised]'",
    "tensorboard": "needed for report_to: [tensorboard] only: pip install 'silotune[tensorboard]'",
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


def configuration(federation: Description, output_dir: Path) -> Iterator[Check]:
    """Whether disk, data, model and privacy of a federation work out. Nothing is written.

    Args:
        federation: as described.
        output_dir: of the run.
    """
    terms, records = federation.terms, federation.records
    yield _found("output_dir", lambda: _place(output_dir))
    yield _found("device", lambda: str(federation.machine.torch_device()))
    prepared = _tried(lambda: read_tables(terms, records))
    yield _found("data", lambda: _silos(_whole(prepared)))
    known = terms.objective.label_names
    labels = prepared.labels if isinstance(prepared, Prepared) else known
    if labels is None:
        yield Check(what="model", ok=False, text="not looked at: its labels come from the data")
        return
    found = labels
    model = _tried(lambda: open_model(terms, found, federation.machine, federation.given))
    yield _found("model", lambda: _numbers(_whole(model)))
    if isinstance(model, BuiltModel):
        yield _found("adapter", lambda: refuse_unloadable(_whole(model), terms))
    if isinstance(prepared, Prepared):
        tables = prepared
        yield _found("privacy", lambda: _noise(terms, records, tables))
        if isinstance(model, BuiltModel):
            reader = model.loaded
            yield _found("records", lambda: _records(terms, tables, reader))


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


def _place(output_dir: Path) -> str:
    folder = RunFolder(output_dir)
    free = free_space(folder.path)
    state = "holds a run already; " if folder.run.exists() else ""
    return f"{folder.path}: {state}{free / 1e9:.1f} GB free"


def _silos(prepared: Prepared) -> str:
    records = sum(len(silo.train) for silo in prepared.silos.values())
    labels = f", {len(prepared.labels)} labels" if prepared.labels else ""
    told = f"{len(prepared.silos)} silos, {records:,} training records{labels}"
    return "; ".join((told, *prepared.notices))


def _numbers(model: BuiltModel) -> str:
    return (
        f"{model.total:,} numbers, {model.trained:,} of them trained at {len(model.sites)} "
        "places; every gradient is covered"
    )


def _noise(terms: Terms, records: Records, prepared: Prepared) -> str:
    true_sizes = {name: len(silo.train) for name, silo in prepared.silos.items()}
    sizes, _ = public_sizes(terms, records, true_sizes)
    training = terms.training_of(len(sizes))
    clients = client_mechanisms(terms.privacy, sizes, training).values()
    server = server_mechanism(terms.privacy, len(sizes), training)
    charges = [server.charge(), *(client.charge(1) for client in clients)]
    sigmas = [charge.noise_multiplier for charge in charges if charge]
    if not sigmas:
        return "none: nothing bounds what the messages reveal"
    return f"noise multiplier {min(sigmas):.3g} to {max(sigmas):.3g}"


def _records(terms: Terms, prepared: Prepared, reader: Loaded) -> str:
    data = read_examples(terms, prepared, reader)
    told = "the model can read all of them"
    if terms.objective.task != "image-classification":
        longest = max(max(silo.train.lengths) for silo in data.silos.values())
        told += f"; up to {count_text(longest, 'token')} of each are read"
    return "; ".join((told, *data.notices))
