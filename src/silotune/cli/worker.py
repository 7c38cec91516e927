"""``worker``: one worker process. Tasks come in on stdin, results go out on stdout."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from silotune.federation.worker_answers import open_worker
from silotune.runs.folder import RunFolder
from silotune.runtimes import frames, in_words, serve, serve_orders

from .pipes import pipes


def work(path: Path, modules: Sequence[str] = ()) -> None:
    """Open the federation that this is told of, and answer orders until who started it is gone.

    Args:
        path: of the run's folder.
        modules: of classes that the federation is made of; whoever starts the worker names them.

    Raises:
        ValueError: if one of them cannot be imported.
    """
    tasks, results = pipes()
    _import(modules)
    take = frames(tasks)
    serve_orders(in_words(open_worker(RunFolder(path), take)), take, results)


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


def work_for_grid() -> None:
    """Make the runs that a grid orders, until its process is gone."""
    from silotune.comparison.worker import serve as serve_runs

    serve_runs(*pipes())


def _import(modules: Sequence[str]) -> None:
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ValueError(
                f"runtime: worker processes cannot import {name} ({error}); put its folder on "
                "PYTHONPATH, or use runtime: in-process"
            ) from error
