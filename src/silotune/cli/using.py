"""The verbs ``evaluate``, ``predict`` and ``generate``: their words, and what they call."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .arguments import Json, RunPath, examples
from .choices import Split
from .errors import reported

if TYPE_CHECKING:
    from .use import Files

Learned = Annotated[
    Path,
    typer.Argument(
        metavar="RUN|ADAPTER",
        help="The folder of a run, or of an adapter that was exported.",
        show_default=False,
    ),
]
_SOURCE = typer.Option(
    "--input",
    "-i",
    metavar="FILE",
    help="Records: csv, tsv, json, jsonl, parquet, feather, arrow, xlsx; - reads jsonl from stdin.",
    show_default=False,
)
_TARGET = typer.Option(
    "--output",
    "-o",
    metavar="FILE",
    help="A new file: csv, tsv, jsonl or parquet; - writes jsonl to stdout.",
    show_default=False,
)
Silo = Annotated[
    str | None,
    typer.Option("--silo", metavar="NAME", help="Whose, if each has its own.", show_default=False),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it is there.")]
Delimiter = Annotated[
    str | None,
    typer.Option(
        "--delimiter",
        metavar="CHAR",
        help="Between the input's columns, if no comma.",
        show_default=False,
    ),
]
Encoding = Annotated[
    str | None,
    typer.Option(
        "--encoding", metavar="NAME", help="Of the input, if not UTF-8.", show_default=False
    ),
]
Sheet = Annotated[
    str | None,
    typer.Option(
        "--sheet", metavar="NAME", help="Of an input in xlsx with several.", show_default=False
    ),
]


def add_using(app: typer.Typer) -> None:
    """Add them."""
    app.command(
        epilog=examples(
            "silotune evaluate runs/triage",
            "silotune evaluate runs/triage --split valid",
            "silotune evaluate runs/chats --generate",
        )
    )(evaluate)
    app.command(
        epilog=examples(
            "silotune predict runs/triage --input new.csv --output said.csv",
            "silotune predict adapter --input - --output - < new.jsonl",
        )
    )(predict)
    app.command(
        epilog=examples(
            'silotune generate runs/chats --prompt "When may I go home?"',
            "silotune generate runs/chats --input asked.jsonl --output written.jsonl",
        )
    )(generate)


@reported
def evaluate(
    run_path: RunPath,
    split: Annotated[
        Split | None,
        typer.Option("--split", help="By default test, if the data has it.", show_default=False),
    ] = None,
    mask_expert: Annotated[
        list[str] | None,
        typer.Option(
            "--mask-expert",
            metavar="DIR",
            help="Leave one of method.experts out (mole); may be given again.",
            show_default=False,
        ),
    ] = None,
    generate: Annotated[
        bool,
        typer.Option(
            "--generate",
            help="Also let a language model write, and score its texts: exact match and ROUGE. "
            "Slow.",
        ),
    ] = False,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-new-tokens",
            min=1,
            metavar="N",
            help="Of each text, with --generate; by default what a record has room for.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Load a run's adapter and score it; silos' own ones are scored together."""
    if max_new_tokens is not None and not generate:
        raise typer.BadParameter("is of --generate: give that too", param_hint="--max-new-tokens")
    from .evaluate import score_run

    score_run(
        run_path,
        split.value if split else None,
        mask_expert or [],
        max_new_tokens or generate,
        as_json=as_json,
    )


@reported
def predict(
    path: Learned,
    source: Annotated[str, _SOURCE],
    target: Annotated[str, _TARGET],
    silo: Silo = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, metavar="N", help="Records at once.")
    ] = 64,
    overwrite: Overwrite = False,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    sheet: Sheet = None,
) -> None:
    """Say of each record of a file what a run has learned: labels, scores, entities or vectors.

    The file has the columns that the model reads, by the names of training. The output has all of
    its columns, in order, and beside them "prediction" (numbers: "prediction_NAME") and the
    probability of each label; a number that is not finite is null in jsonl and nothing in csv. A
    command that is interrupted writes nothing.
    """
    from .use import predict_file

    predict_file(
        path, _files(source, target, overwrite, delimiter, encoding, sheet), silo, batch_size
    )


@reported
def generate(
    path: Learned,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt",
            metavar="TEXT",
            help="What to go on from, or to answer where the run was trained on chats; may be "
            "given again.",
            show_default=False,
        ),
    ] = None,
    source: Annotated[str | None, _SOURCE] = None,
    target: Annotated[str | None, _TARGET] = None,
    silo: Silo = None,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", min=1, metavar="N", help="Of each text at most.")
    ] = 128,
    temperature: Annotated[
        float,
        typer.Option("--temperature", min=0.0, help="0: the most probable token each time."),
    ] = 0.0,
    seed: Annotated[int, typer.Option("--seed", help="Of what a temperature draws.")] = 0,
    overwrite: Overwrite = False,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    sheet: Sheet = None,
) -> None:
    """Let a language model write: after a prompt, on stdout, or after each record of a file.

    A run that was trained on chats answers in its chat template. The output has the input's
    columns, in order, and "generated"; a command that is interrupted writes none.
    """
    if bool(prompt) == (source is not None):
        raise typer.BadParameter("give either --prompt, or --input and --output")
    if (source is None) != (target is None):
        raise typer.BadParameter("--input and --output go together")
    from .use import Writing, generate_file, generate_here

    how = Writing(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    if source is not None and target is not None:
        files = _files(source, target, overwrite, delimiter, encoding, sheet)
        generate_file(path, files, silo, how)
    else:
        generate_here(path, prompt or [], silo, how)


def _files(
    source: str,
    target: str,
    overwrite: bool,
    delimiter: str | None,
    encoding: str | None,
    sheet: str | None,
) -> Files:
    from silotune.data.formats import FileOptions

    from .use import Files

    options = FileOptions(delimiter=delimiter, encoding=encoding, sheet=sheet, as_written=True)
    return Files(source=source, target=target, overwrite=overwrite, options=options)
