"""``worker``: one worker process. Tasks come in on stdin, results go out on stdout."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path

from silotune.federation.built import build_clients, build_federation
from silotune.federation.lifetimes import open_accounts
from silotune.federation.remembering import remembering
from silotune.federation.workers import WORKERS_LOG
from silotune.runs.facts import read_facts
from silotune.runs.folder import RunFolder
from silotune.runtimes import serve

from .config_source import of_run
from .pipes import pipes


def work(path: Path, modules: Sequence[str] = ()) -> None:
    """Open the run's federation and answer tasks until who started this is gone.

    Args:
        path: of the run's folder.
        modules: of classes that the federation is made of; whoever starts the worker names them.

    Raises:
        ValueError: if one of them cannot be imported.
    """
    tasks, results = pipes()
    _import(modules)
    folder = RunFolder(path)
    built = build_federation(of_run(folder), read_facts(folder).started)
    if built.terms.private:  # what it says from here on may be of records, and stays with them
        log = os.open(folder.path / "sites" / WORKERS_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 2)
        os.dup2(log, 1)
    built = remembering(built, folder.site, folder.state.parent)
    trainer = built.agreement.model.trainer
    clients = build_clients(built, folder.site, read_facts(folder).run, open_accounts(built))
    serve(trainer, clients, tasks, results)


def work_for_audit(path: Path, modules: Sequence[str] = ()) -> None:
    """Make an audit's silos, whose records are made up, and answer tasks until the pool is gone.

    Args:
        path: of the audit's folder.
        modules: as ``work``.

    Raises:
        ValueError: if one of them cannot be imported.
    """
    from silotune.federation.audit_pool import ordered_silos  # which loads statistics

    tasks, results = pipes()
    _import(modules)
    trainer, silos = ordered_silos(path)
    serve(trainer, silos, tasks, results)


def _import(modules: Sequence[str]) -> None:
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ValueError(
                f"runtime: worker processes cannot import {name} ({error}); put its folder on "
                "PYTHONPATH, or use runtime: in-process"
            ) from error
