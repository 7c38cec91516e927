"""The verbs that only silotune itself calls: processes that work for another one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .arguments import RunPath
from .errors import reported


def add_hidden(app: typer.Typer) -> None:
    """Add them."""
    app.command(hidden=True)(worker)
    app.command(name="audit-worker", hidden=True)(audit_worker)
    app.command(name="compare-worker", hidden=True)(compare_worker)


@reported
def worker(
    run_path: RunPath,
    modules: Annotated[
        list[str] | None, typer.Option("--import", help="A module whose classes the run needs.")
    ] = None,
) -> None:
    """Train for a pool, which starts this."""
    from .worker import work

    work(run_path, modules or ())


@reported
def audit_worker(
    path: Annotated[Path, typer.Argument(metavar="FOLDER", show_default=False)],
    modules: Annotated[
        list[str] | None, typer.Option("--import", help="A module whose classes are needed.")
    ] = None,
) -> None:
    """Train made-up records for an audit's pool, which starts this."""
    from .worker import work_for_audit

    work_for_audit(path, modules or ())


@reported
def compare_worker() -> None:
    """Make runs of a grid, whose process starts this."""
    from .worker import work_for_grid

    work_for_grid()
