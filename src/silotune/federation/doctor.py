"""Doctor: does what a configuration names work out? One finding after the other, in words.

A finding that fails does not hide those that do not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from silotune.core.units import count_text
from silotune.data.federated_dataset import Prepared
from silotune.models.load import Loaded
from silotune.objectives import find
from silotune.privacy.mechanisms_from_choice import client_mechanisms, server_mechanism
from silotune.runs.folder import RunFolder
from silotune.terms import BuiltModel, Terms, open_model

from .adapter_check import refuse_unloadable
from .built import public_sizes
from .description import Description
from .environment import Check
from .free_space import free_space
from .inputs import read_examples, read_tables
from .records import Records

T = TypeVar("T")


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
    if find(terms.objective.task).reads == "text":
        longest = max(max(silo.train.lengths) for silo in data.silos.values())
        told += f"; up to {count_text(longest, 'token')} of each are read"
    return "; ".join((told, *data.notices))
