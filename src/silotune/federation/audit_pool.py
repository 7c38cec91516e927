"""The audit's silos in worker processes: what a worker is told, and how it makes the same silos.

The pool, its frames and its workers' life are those of any run. A worker opens the model by the
audited terms and makes the records itself, as this process does; nothing is pickled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from silotune.audit.canaries import silence, silent
from silotune.audit.transcript import Course, Open, Silos, audited
from silotune.core import ClientId
from silotune.core.files import read_json, write_json
from silotune.engine import Client, LocalTrainer, Runtime
from silotune.privacy import ExampleLevel
from silotune.runtimes import Pool, Remote
from silotune.terms import BuiltModel, Machine, Terms, open_model

from .identity import decoded, encoded

ORDERS, HOMES = "audit.json", "silos"
"""In the folder of a pool's audit: what workers are told, and the folders of the silos."""

WORKERS = 2
DEADLINE = 3600.0
"""Seconds that a round of an audit may take."""


@dataclass(frozen=True, kw_only=True)
class SilentRun:
    """A run of silos that send noise alone.

    Attributes:
        course: of the run.
        records: of every silo.
        mechanisms: of every silo.
    """

    course: Course
    records: Mapping[str, int]
    mechanisms: Mapping[str, ExampleLevel]


def silent_silos(
    model: BuiltModel, terms: Terms, run: SilentRun, folder: Path
) -> tuple[LocalTrainer, dict[ClientId, Client]]:
    """The model as an audit trains it, and silos without a gradient, in any process alike.

    Args:
        model: the adapted model.
        terms: that it was opened by.
        run: what is to be run.
        folder: of the audit.
    """
    objective, rows = silence(model, terms)
    records = {name: (silent(rows, n), run.mechanisms[name]) for name, n in run.records.items()}
    return audited(model, objective, run.course, records, folder / HOMES)


def write_orders(
    folder: Path, terms: Terms, labels: Sequence[str], machine: Machine, run: SilentRun
) -> None:
    """Tell workers what to open.

    Raises:
        NoIdentityError: if something of it cannot be written.
    """
    given = {"terms": terms, "labels": labels, "machine": machine, "run": run}
    write_json(folder / ORDERS, {name: encoded(value, name) for name, value in given.items()})


def ordered_silos(folder: Path) -> tuple[LocalTrainer, dict[ClientId, Client]]:
    """What a worker serves.

    Args:
        folder: that ``write_orders`` wrote into.

    Raises:
        ValueError: if it is damaged, or names a class that nobody imported.
    """
    path = folder / ORDERS
    written: Mapping[str, Any] = read_json(path)
    told = {name: decoded(code, str(path)) for name, code in written.items() if name != "version"}
    model = open_model(told["terms"], tuple(told["labels"]), told["machine"])
    return silent_silos(model, told["terms"], told["run"], folder)


def pooled(command: Sequence[str], folder: Path) -> Open:
    """Opens the audit's silos in workers.

    Args:
        command: starts a worker, without the folder.
        folder: that ``write_orders`` wrote into.
    """

    @contextmanager
    def opened(trainer: LocalTrainer, silos: Silos) -> Iterator[Runtime]:
        with Pool([*command, str(folder)], WORKERS) as pool:
            yield Remote(pool, list(silos), DEADLINE)

    return opened
