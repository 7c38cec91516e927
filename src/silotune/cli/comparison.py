"""The verbs ``compare`` and ``report``: their words on the command line, and what they call."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .arguments import Overrides, examples
from .choices import GridRuntime, Layout
from .errors import reported


def add_comparison(app: typer.Typer) -> None:
    """Add them."""
    app.command(
        epilog=examples(
            "silotune compare grid.yaml",
            "silotune compare grid.yaml --plan",
            "silotune compare grid.yaml data.path=notes.csv seeds=5",
            "silotune compare grid.yaml --format latex",
        )
    )(compare)
    app.command(
        epilog=examples(
            "silotune report runs/grid",
            "silotune report runs/grid --watch",
            "silotune report runs/a runs/b --output both.html",
        )
    )(report)


@reported
def compare(
    grid: Annotated[Path, typer.Argument(metavar="GRID", help="A YAML file.", show_default=False)],
    overrides: Overrides = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "--output-dir",
            metavar="DIR",
            help="Folder of the grid; by default runs/ and the name of the file.",
            show_default=False,
        ),
    ] = None,
    at_once: Annotated[
        int | None,
        typer.Option(
            "--at-once",
            min=1,
            metavar="N",
            help="Runs at a time; by default one for each core, or on a cluster for each GPU.",
            show_default=False,
        ),
    ] = None,
    runtime: Annotated[
        GridRuntime,
        typer.Option("--runtime", help="Processes of this machine, or of your own Ray cluster."),
    ] = GridRuntime.PROCESSES,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what would run, and what is refused.")
    ] = False,
    layout: Annotated[
        Layout, typer.Option("--format", help="How the table is printed.")
    ] = Layout.TERMINAL,
) -> None:
    """Compare methods and settings over seeds: make the runs of a grid that are missing.

    Stop it at any time: the same command goes on. All cells have the same budget of trials, chosen
    by on valid records. Tables, a page and every run are written into the grid's folder.
    """
    from .compare import fill

    fill(grid, overrides or [], output_dir, at_once, runtime.value, layout.value, plan=plan)


@reported
def report(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="GRID|RUN...", help="A grid's folder, or runs'.", show_default=False
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.html",
            help="The page to write; by default report.html in a grid's folder.",
            show_default=False,
        ),
    ] = None,
    layout: Annotated[
        Layout, typer.Option("--format", help="How the table is printed.")
    ] = Layout.TERMINAL,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Show the page in a browser of this machine as runs end, until Ctrl-C. Nothing "
            "is written, and nobody else can reach it.",
        ),
    ] = False,
    port: Annotated[
        int,
        typer.Option("--port", metavar="N", min=0, max=65535, help="Of --watch; 0: any free one."),
    ] = 0,
) -> None:
    """Make one page of a grid, as far as it has come, or of several runs beside each other."""
    if watch:
        if output is not None:
            raise typer.BadParameter("--watch writes nothing; leave --output out")
        from .watch_report import watch_report

        watch_report(paths, port)
        return
    from .compare import show

    show(paths, output, layout.value)
