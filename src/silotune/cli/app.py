"""The verbs of ``silotune``: their words on the command line, and what they call."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Annotated

import typer

from silotune.signals import heard
from silotune.version import __version__

from .arguments import ConfigName, Json, Overrides, RunPath, examples
from .choices import Estimate, Format, Task
from .comparison import add_comparison
from .errors import LEFT, UNHEARD, complain, reported
from .federation import federation
from .hidden import add_hidden
from .privacy import privacy
from .site import site
from .streams import replace_streams
from .using import add_using

app = typer.Typer(
    name="silotune",
    help="Private federated fine-tuning of transformer models with low-rank adapters.",
    epilog="Begin with:  silotune run triage   (synthetic data),  or  silotune init mine.yaml",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.add_typer(privacy, name="privacy", help="Check what a run claims, and what records have paid.")
app.add_typer(federation, name="federation", help="Decide who takes part: for a coordinator.")
app.add_typer(
    site, name="site", help="At a site: join, see what is asked for, and say yes or no to it."
)


_NEW_OBJECTS = 100_000
"""After so many the collector looks for cycles, of which steps make none. Imports make half a
million objects that stay; to look at them after every 700 is a fifth of their time."""


def main() -> None:
    """The command ``silotune``; if it worked and could not say so, it ends with ``UNHEARD``.

    Where its reader has left it ends with ``LEFT``, and says nothing of it.
    """
    gc.set_threshold(_NEW_OBJECTS)
    out = replace_streams()
    try:
        with heard():
            app()
    except SystemExit as end:
        out.flush()
        if out.left and not end.code:
            raise SystemExit(LEFT) from None
        if out.lost and not end.code:
            complain(f"stdout: {out.lost}; the command went on to its end, but could not say so")
            raise SystemExit(UNHEARD) from None
        raise


def _version(asked: bool) -> None:
    if asked:
        print(f"silotune {__version__}")
        raise typer.Exit


@app.callback()
@reported
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    method_class: Annotated[
        str | None,
        typer.Option(
            "--method-class",
            metavar="MODULE:CLASS",
            help="A method of your own. A configuration file of yours may name it by itself; "
            "for what lies in the folder of a run its code is imported only if you say so here.",
            show_default=False,
        ),
    ] = None,
) -> None:
    if method_class is not None:
        from silotune.config import import_method

        import_method(method_class)


@app.command(
    epilog=examples(
        "silotune init",
        "silotune init mine.yaml --data notes.csv",
        "silotune init mine.yaml --data chats.jsonl --task causal-lm --model ./my-model",
    )
)
@reported
def init(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="PATH", help="File to write; by default NAME.yaml here.", show_default=False
        ),
    ] = None,
    example: Annotated[
        str, typer.Option("--example", metavar="NAME", help="Which bundled configuration to copy.")
    ] = "triage",
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="DATA",
            help="A file, folder, URL or hub name: look at it, and draft a configuration for it.",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        Task | None,
        typer.Option(
            "--task", help="What is learned from --data; told by its columns if left out."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="What to train on --data: a hub name or folder; a small public one if left out.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a commented configuration to begin with: an example, or one for data of yours.

    Of data only the names of columns, labels and silos are written down, and their counts.
    """
    if data is not None:
        from .draft import draft

        draft(path, data, task.value if task else None, model)
    elif task is not None or model is not None:
        raise typer.BadParameter("is for data of yours: give --data too", param_hint="--task")
    else:
        from .init import start

        start(path, example)


@app.command(epilog=examples("silotune doctor", "silotune doctor mine.yaml"))
@reported
def doctor(
    config: Annotated[
        str | None,
        typer.Argument(metavar="CONFIG", help="Also check this configuration.", show_default=False),
    ] = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Check that everything a run needs is here: packages, device, disk, model, data, privacy."""
    from .doctor import examine

    examine(config, overrides or [], as_json=as_json)


@app.command(
    epilog=examples("silotune plan mine.yaml", "silotune plan triage privacy.target_epsilon=1")
)
@reported
def plan(config: ConfigName, overrides: Overrides = None, as_json: Json = False) -> None:
    """Say what a run will cost, before anything trains: noise, epsilon by round, bytes, steps."""
    from .plan import foretell

    foretell(config, overrides or [], as_json=as_json)


@app.command(
    epilog=examples("silotune data mine.yaml", "silotune data mine.yaml --picture data.svg")
)
@reported
def data(
    config: ConfigName,
    overrides: Overrides = None,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="FILE.svg", help="Also draw it.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show how the records divide over the silos: sizes, labels, lengths, duplicates.

    This looks at all records at once, as only a simulation may: epsilon does not cover it.
    """
    from .data import count

    if picture is not None and picture.suffix != ".svg":
        raise typer.BadParameter("the picture is SVG; give a name that ends in .svg")
    count(config, overrides or [], picture, as_json=as_json)


@app.command(
    epilog=examples(
        "silotune run triage",
        "silotune run mine.yaml train.num_rounds=3 --output-dir runs/short",
        "silotune run mine.yaml --resume",
    )
)
@reported
def run(
    config: ConfigName,
    overrides: Overrides = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in the output folder.")
    ] = False,
    output_dir: Annotated[
        str | None,
        typer.Option(
            "--output-dir", metavar="DIR", help="Folder of the result.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train, and write adapter, privacy statement and report into the output folder."""
    from .run import train

    train(config, overrides or [], output_dir, resume=resume, as_json=as_json)


add_comparison(app)


add_using(app)


@app.command(
    epilog=examples(
        "silotune export runs/triage --format peft --output adapter",
        "silotune export runs/triage --format merged --output model",
    )
)
@reported
def export(
    run_path: RunPath,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="A new folder.")],
    kind: Annotated[
        Format,
        typer.Option("--format", help="The adapter by itself, or the whole model with it inside."),
    ] = Format.PEFT,
    silo: Annotated[
        str | None,
        typer.Option(
            "--silo", metavar="NAME", help="Whose, if each has its own.", show_default=False
        ),
    ] = None,
    approximate: Annotated[
        Estimate | None,
        typer.Option(
            "--approximate",
            help="With --format merged: estimate what ResLoRA's shortcuts read, by the norms of "
            "weights, or of inputs (of training records: without privacy only).",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Take a run's result elsewhere: as a PEFT adapter, or merged into the model."""
    from .export import export_run

    export_run(run_path, kind.value, output, silo, approximate and approximate.value)


@app.command(
    epilog=examples("silotune eva mine.yaml --texts public.csv --output start"),
)
@reported
def eva(
    config: ConfigName,
    texts: Annotated[
        Path, typer.Option("--texts", metavar="FILE", help="Public texts: csv, jsonl, parquet ...")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="A new folder.")],
    overrides: Overrides = None,
    column: Annotated[str, typer.Option("--column", help="The column of the texts.")] = "text",
) -> None:
    """Make an adapter to begin from (EVA), of what the layers of the model read of public texts.

    A run takes it as method.init_from. No record is read.
    """
    from .eva import write_start

    write_start(config, overrides or [], texts, column, output)


@app.command(epilog=examples("silotune audit mine.yaml", "silotune audit runs/triage --thorough"))
@reported
def audit(
    config: ConfigName,
    overrides: Overrides = None,
    thorough: Annotated[
        bool,
        typer.Option(
            "--thorough",
            help="Up to 20 minutes: worker processes, more silos, rounds and trials, and canaries "
            "through the whole model.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Attack the privacy mechanisms of a configuration, or of a run, with canary records.

    Reads what silos sent over several rounds, and compares it with what is claimed: noise of every
    tensor, its independence, coins, and how far one record moves a message. Then measures from
    below the epsilon that is claimed from above. No private record is read for it but to find
    silos, sizes and labels that are not declared. Takes less than two minutes. Exit code 1 unless
    the verdict is PASS.
    """
    from .audit import investigate

    investigate(config, overrides or [], thorough=thorough, as_json=as_json)


@app.command(
    epilog=examples(
        "silotune methods",
        "silotune methods --costs sentence-transformers/all-MiniLM-L6-v2 --clients 10",
    )
)
@reported
def methods(
    model: Annotated[
        str | None,
        typer.Option(
            "--costs",
            metavar="MODEL",
            help="Count what each method sends on this model: a folder or a hub name.",
            show_default=False,
        ),
    ] = None,
    clients: Annotated[
        int, typer.Option("--clients", min=1, metavar="K", help="Clients in a round, for --costs.")
    ] = 3,
    rank: Annotated[
        int, typer.Option("--r", min=1, metavar="R", help="Rank of the adapters, for --costs.")
    ] = 8,
    as_json: Json = False,
) -> None:
    """List the methods, the rules that each can be combined by, or what it sends on a model."""
    if model is None:
        from .methods import list_methods

        list_methods(as_json=as_json)
    else:
        from .costs import list_costs

        list_costs(model, clients, rank, as_json=as_json)


add_hidden(app)
