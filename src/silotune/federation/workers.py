"""Workers: the command that starts one process, what it can be told, and who starts it.

A worker opens the federation that the run's folder describes. Nothing is pickled: classes are
named, and those outside of this package are imported only because this command says so.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from silotune.runtimes import Courier, Pool

from .description import Description
from .identity import classes, describe, is_ours

SILOTUNE = (sys.executable, "-P", "-m", "silotune")
"""The command line in another process, which must not import what lies in the current folder."""


WORKERS_LOG = "workers.log"
"""Beside the silos' folders: what workers of a private run would say on the screen, and all that
workers of Ray say."""


def courier_to_workers(
    federation: Description, command: Sequence[str], folder: Path
) -> AbstractContextManager[Courier]:
    """The way to the workers of a run: a pool on this machine, or those of a Ray cluster.

    Args:
        federation: says which, and how many.
        command: starts a worker, without the folder.
        folder: of the run.
    """
    words = [*command, str(folder.resolve())]
    if federation.runtime == "pool":
        return Pool(words, federation.workers)
    from silotune.runtimes.ray import RayCourier

    log = folder.resolve() / "sites" / WORKERS_LOG
    return RayCourier(words, log, federation.workers, federation.machine.device)


def worker_command(federation: Description) -> list[str]:
    """Starts a worker, without the folder of the run.

    Raises:
        ValueError: if something of the federation cannot be named to another process.
    """
    described = describe(federation)
    refuse_unreachable(described)
    return [*SILOTUNE, "worker", *_imports(described)]


def audit_worker(federation: Description) -> list[str]:
    """Starts a worker of an audit, without its folder; empty if it cannot be told what to open."""
    try:
        described = describe(federation)
        refuse_unreachable(described)
    except ValueError:
        return []
    return [*SILOTUNE, "audit-worker", *_imports(described)]


def refuse_unreachable(described: Mapping[str, Any]) -> None:
    """Refuse classes that only this program has.

    Raises:
        ValueError: naming the class.
    """
    for name in classes(described):
        module, _, kind = name.partition(":")
        if module == "__main__" or "<locals>" in kind:
            where = "this notebook or program" if module == "__main__" else "a function"
            raise ValueError(
                f"runtime: {kind} is a class of {where}, which worker processes cannot import; "
                "put it into a module of its own, or use runtime='in-process'"
            )


def _imports(described: Mapping[str, Any]) -> list[str]:
    """Options that name the modules of classes which are not ours."""
    modules = sorted({name.partition(":")[0] for name in classes(described) if not is_ours(name)})
    return [part for name in modules for part in ("--import", name)]
